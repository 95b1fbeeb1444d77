"""Adversarially distilled networks (Sauer et al. 2023): one step from the noisiest level to x0.

    x0' = x0,    n' = z

These networks are made for one step, which needs no noise z. With more levels, noise is added to x0 again before the
next call, as in the training of such networks. Order 0: nothing is integrated.
"""

from torch import Tensor

from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.solver import Call, Memory, Solver, keep, need_noise, one_call


def open() -> Solver:
    """Turbo: one step, or a few steps with noise added in between."""
    return Solver("turbo", space="vp", order=0, needs_noise=True, step=_step)


def _step(level: Level, level_next: Level) -> tuple[Call, ...]:
    if level_next.sigma == 0:
        return one_call(level, level_next, keep)
    return one_call(level, level_next, _renoise, needs_noise=True, rho=1.0)


def _renoise(x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
    return x0, need_noise(z, "turbo"), ()
