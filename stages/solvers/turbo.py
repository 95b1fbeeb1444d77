"""Adversarially distilled networks (Sauer et al. 2023): one step from the noisiest level to x0.

    x0' = x0,    n' = z

One step is what they are for and needs no noise z. With more levels the x0 is made noisy again and asked about once
more, as in the training of such networks. Order 0: nothing is integrated.
"""

from torch import Tensor

from warpfuse.stages.solvers.pair import Level
from warpfuse.stages.solvers.solver import Call, Memory, Solver, keep, need_noise, one_call


def open() -> Solver:
    """One-step turbo, or a few steps by re-noising."""
    return Solver("turbo", space="vp", order=0, needs_noise=True, step=_step)


def _step(level: Level, level_next: Level) -> tuple[Call, ...]:
    if level_next.sigma == 0:
        return one_call(level, level_next, keep)
    return one_call(level, level_next, _renoise, needs_noise=True, rho=1.0)


def _renoise(x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
    return x0, need_noise(z, "turbo"), ()
