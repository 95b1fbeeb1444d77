"""Euler in sigma space (Karras et al. 2022, algorithm 1 without its second half), order 1.

dx / ds = (x - x0) / s = n,    x' = x + (s' - s) n = x0 + s' n    so    x0' = x0,  n' = n
"""

from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.solver import Call, Solver, keep, one_call


def open() -> Solver:
    """Euler on levels with alpha = 1."""

    def step(level: Level, level_next: Level) -> tuple[Call, ...]:
        return one_call(level, level_next, keep)

    return Solver("euler", space="ve", order=1, needs_noise=False, step=step)
