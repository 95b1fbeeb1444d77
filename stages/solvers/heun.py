"""Heun in sigma space (Karras et al. 2022, algorithm 1), order 2: two network calls a step, one for the step to 0.

The first call is Euler's and gives a trial point at s'. The second call evaluates the network there (pair x0_2, n_2).
Then the step from s is taken again with the mean direction:

    m = (n_1 + n_2) / 2,    x' = x + (s' - s) m

Note: the pair of a chord. x' is on the chord from x with slope m, not on a line through x0_1 or x0_2. So the pair of x'
is n' = m, which has the variance of noise, and x0' = x - s m = x0_1 + (s / 2) (n_1 - n_2), where the chord meets s = 0.
Another split of the same x', for example with x0_2, would leave the rest in n'. Fusion rescales n' as unit noise, and
would then get a wrong level.
"""

from torch import Tensor

from warpfuse.stages.solvers.levels import Level
from warpfuse.stages.solvers.network import seen_by_network
from warpfuse.stages.solvers.solver import Call, Memory, Solver, keep, mix, one_call


def open() -> Solver:
    """Heun on levels with alpha = 1."""
    return Solver("heun", space="ve", order=2, needs_noise=False, step=_step)


def _step(level: Level, level_next: Level) -> tuple[Call, ...]:
    if level_next.sigma == 0:  # n is undefined at sigma = 0, so there is no second call
        return one_call(level, level_next, keep)
    s = level.sigma

    def correct(x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        x0_1, n_1 = memory
        return mix((1.0, x0_1), (s / 2, n_1), (-s / 2, n)), mix((0.5, n_1), (0.5, n)), ()

    return (
        Call(level, seen_by_network(level), level_next, _try, needs_noise=False, finished=False),
        Call(level_next, seen_by_network(level_next), level_next, correct, needs_noise=False, finished=True),
    )


def _try(x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
    return x0, n, (x0, n)
