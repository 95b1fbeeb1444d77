"""DDIM (Song, Meng and Ermon 2021, eq. 12 and 16), order 1 on variance-preserving levels.

    x0' = x0,    n' = sqrt(1 - k^2) n + k z,    k = (eta / sigma) sqrt(1 - alpha^2 / alpha'^2)

eta = 0 is deterministic and needs no noise; it is Euler's step in sigma space. eta = 1 is DDPM's ancestral sampling.
"""

from torch import Tensor

from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.pair import ddim_noise, fresh_share
from warpfuse.stages.solvers.solver import Call, Memory, Solver, SolverError, keep, need_noise, one_call


def open(eta: float = 0.0) -> Solver:
    """DDIM. eta: amount of fresh noise, in [0, 1]. Raises SolverError when it is out of range."""
    if not 0 <= eta <= 1:
        raise SolverError(f"solver 'ddim': eta must be in [0, 1], got {eta}. Correct the bundle")

    def step(level: Level, level_next: Level) -> tuple[Call, ...]:
        if eta == 0 or level_next.sigma == 0:
            return one_call(level, level_next, keep)

        def advance(
            x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory
        ) -> tuple[Tensor, Tensor, Memory]:
            return x0, ddim_noise(n, need_noise(z, "ddim"), eta, level, level_next), ()

        return one_call(level, level_next, advance, needs_noise=True, rho=fresh_share(eta, level, level_next))

    return Solver("ddim", space="vp", order=1, needs_noise=eta > 0, step=step)
