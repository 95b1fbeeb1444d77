"""Latent consistency models (Luo et al. 2023, eq. 9 and algorithm 3): predict x0, add noise again, predict again.

    x0' = c_out x0 + c_skip x,    c_skip = d^2 / (s^2 + d^2),    c_out = s / sqrt(s^2 + d^2)
    n'  = z                       s = timestep_scaling * timestep,    d = 0.5

The boundary conditions make the function the identity at timestep 0. Order 0: nothing is integrated, since the network
was distilled to predict the end of the trajectory. With the same z for every frame, a still source gives a still
picture.
"""

import math

from torch import Tensor

from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.solver import Call, Memory, Solver, SolverError, mix, need_noise, one_call

SIGMA_DATA = 0.5


def open(timestep_scaling: float = 10.0) -> Solver:
    """LCM. timestep_scaling: > 0, how fast c_skip falls with the timestep. Raises SolverError out of range."""
    if not timestep_scaling > 0:
        raise SolverError(f"solver 'lcm': timestep_scaling must be above 0, got {timestep_scaling}. Correct the bundle")

    def step(level: Level, level_next: Level) -> tuple[Call, ...]:
        c_skip, c_out = boundary(level.timestep, timestep_scaling)
        ends = level_next.sigma == 0

        def advance(
            x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory
        ) -> tuple[Tensor, Tensor, Memory]:
            return mix((c_out, x0), (c_skip, x)), n if ends else need_noise(z, "lcm"), ()

        return one_call(level, level_next, advance, needs_noise=not ends, rho=0.0 if ends else 1.0)

    return Solver("lcm", space="vp", order=0, needs_noise=True, step=step)


def boundary(timestep: float, timestep_scaling: float = 10.0) -> tuple[float, float]:
    """(c_skip, c_out) at a timestep: (1, 0) at 0, and nearly (0, 1) from a few timesteps on."""
    s = timestep_scaling * timestep
    return SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2), s / math.hypot(s, SIGMA_DATA)
