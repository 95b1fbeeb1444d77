"""Ancestral sampling in sigma space (Song et al. 2021, appendix F), order 1 in distribution.

    s_up^2 = s'^2 (s^2 - s'^2) / s^2,    s_down^2 = s'^2 - s_up^2
    x' = x0 + s_down n + s_up z          so    x0' = x0,    n' = sqrt(1 - k^2) n + k z,    k = s_up / s'

k^2 = 1 - (s'/s)^2 equals DDIM's at eta = 1 for the variance-preserving forms of both levels, so both share one rule.
"""

from torch import Tensor

from warpfuse.stages.solvers.levels import Level, variance_preserving
from warpfuse.stages.solvers.pair import ddim_noise, fresh_share
from warpfuse.stages.solvers.solver import Call, Memory, Solver, keep, need_noise, one_call


def open() -> Solver:
    """Ancestral Euler on levels with alpha = 1."""

    def step(level: Level, level_next: Level) -> tuple[Call, ...]:
        if level_next.sigma == 0:
            return one_call(level, level_next, keep)
        above, below = variance_preserving(level), variance_preserving(level_next)

        def advance(
            x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory
        ) -> tuple[Tensor, Tensor, Memory]:
            return x0, ddim_noise(n, need_noise(z, "euler_ancestral"), 1.0, above, below), ()

        return one_call(level, level_next, advance, needs_noise=True, rho=fresh_share(1.0, above, below))

    return Solver("euler_ancestral", space="ve", order=1, needs_noise=True, step=step)
