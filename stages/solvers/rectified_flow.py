"""Rectified flow by Euler's method (Liu, Gong and Liu 2023, eq. 1), order 1 on levels alpha = 1 - t, sigma = t.

dx / dt = u = n - x0,    x' = x + (t' - t) u = (1 - t') x0 + t' n    so    x0' = x0,  n' = n
"""

from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.solver import Call, Solver, keep, one_call


def open() -> Solver:
    """Euler on levels with alpha + sigma = 1."""

    def step(level: Level, level_next: Level) -> tuple[Call, ...]:
        return one_call(level, level_next, keep)

    return Solver("rectified_flow", space="flow", order=1, needs_noise=False, step=step)
