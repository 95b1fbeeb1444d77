"""Solvers: a solver is a plan of network calls, each with a pure function from one pair to the next.

Note: a plan of calls instead of a callback. A solver that called the network itself would own the loop. A stream batch
could not use it, since one network call of a stream batch has rows of several frames, each at its own step. So a solver
only defines what happens between two network calls. `plan` lists the calls of a frame in order; Heun's step has two.
Row k of a stream batch is call k. A value that a row needs in its next call, such as Heun's first pair, is passed along
as `memory`. A single frame is run by a loop over the same plan:

    for call in solver.plan(levels):
        x0, n = split(x, network(network_input(x, call.level), call.seen), call.level, prediction)
        x0, n, memory = call.advance(x, x0, n, z, memory)
        # here, if call.finished: fuse a reference into (x0, n)
        x = compose(x0, n, call.level_next)

Everything that depends on levels and options only is computed when the plan is made. `advance` multiplies and adds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from warpfuse.engine.errors import BadInput
from warpfuse.stages.solvers.levels import CLEAN, Level
from warpfuse.stages.solvers.network import seen_by_network

Memory = tuple[Tensor, ...]
"""Tensors that a row passes from one call to the next; () at the begin of a step and after a cut."""

Advance = Callable[[Tensor, Tensor, Tensor, Tensor | None, Memory], tuple[Tensor, Tensor, Memory]]
"""(x, x0, n, z, memory) -> (x0', n', memory'), all [b, c, h, w]. A pure function; arithmetic in float32 at least.

x, x0, n  the latent at `call.level` and its predicted pair: x = alpha x0 + sigma n
z         unit noise independent of n, fresh or the same for every frame; None if the call needs none
"""


class SolverError(BadInput):
    """A solver that does not exist, options it does not have, or levels it does not solve on."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the network, and the step that follows it.

    level        level of the network's input x
    seen         this level in the form for the network (`network.py`)
    level_next   level at which (x0', n') is composed for the next call; after the last call, the end of the plan
    advance      (x, x0, n, z, memory) -> (x0', n', memory')
    needs_noise  advance uses z
    finished     the pair is the result of a step, and a reference may be fused into it. False within a step: the
                 correction of Heun's trial point would undo a fusion
    rho          correlation of n' with z: 1 for a call that adds z as the new noise, 0 for a call that keeps the
                 predicted n. Fusion with z as the reference's noise uses it in `rescale`
    """

    level: Level
    seen: Level
    level_next: Level
    advance: Advance
    needs_noise: bool
    finished: bool
    rho: float = 0.0


@dataclass(frozen=True, slots=True)
class Solver:
    """A solver. A value without state, which may be shared.

    name         name of its module
    space        family of its levels: "vp" alpha^2 + sigma^2 = 1, "ve" alpha = 1, "flow" alpha + sigma = 1
    order        order of convergence on the probability-flow ODE (for a stochastic solver: in distribution); 0: it
                 predicts x0 directly and needs a network that was distilled to do so
    needs_noise  some call uses z
    step         (level, level_next) -> the calls of one step
    """

    name: str
    space: str
    order: int
    needs_noise: bool
    step: Callable[[Level, Level], tuple[Call, ...]]

    def plan(self, levels: Sequence[Level], end: Level = CLEAN) -> tuple[Call, ...]:
        """All network calls of a frame, in order.

        levels  levels in the solver's space, noisiest first; the latent starts at the first
        end     end of the last step. At sigma = 0 the composed latent is x0 and needs no noise. Some checkpoints end at
                the lowest level of their table instead

        Raises SolverError without levels, for levels of another space, and for levels that do not descend.
        """
        if not levels:
            raise SolverError(f"solver {self.name!r} needs one level or more, got none")
        for level in (*levels, end):
            if not _OF_SPACE[self.space](level):
                raise SolverError(f"solver {self.name!r} needs levels with {_RULE[self.space]}, got {level}")
        for level, lower in pairwise((*levels, end)):
            if level.sigma == 0 or lower.sigma * level.alpha > level.sigma * lower.alpha:
                raise SolverError(f"solver {self.name!r} goes from noisy levels to lower ones, got {level} -> {lower}")
        return tuple(call for a, b in pairwise((*levels, end)) for call in self.step(a, b))


def one_call(
    level: Level, level_next: Level, advance: Advance, needs_noise: bool = False, rho: float = 0.0
) -> tuple[Call, ...]:
    """The calls of a step with one network call."""
    return (Call(level, seen_by_network(level), level_next, advance, needs_noise, finished=True, rho=rho),)


def keep(x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
    """x0' = x0, n' = n: Euler's step in every family, and every solver's step to sigma = 0."""
    return x0, n, ()


def need_noise(z: Tensor | None, name: str) -> Tensor:
    """z, which this call needs. Raises SolverError when it is None."""
    if z is None:
        raise SolverError(f"solver {name!r} needs noise z for this call, got None: give what `needs_noise` asks for")
    return z


def mix(first: tuple[float, Tensor], *others: tuple[float, Tensor]) -> Tensor:
    """The sum of factor * tensor, computed in float32 at least, in the dtype of the first tensor."""
    wide = torch.float32
    for _, tensor in (first, *others):
        wide = torch.promote_types(wide, tensor.dtype)
    total = first[0] * first[1].to(wide)
    for gain, tensor in others:
        total = total + gain * tensor.to(wide)
    return total.to(first[1].dtype)


_CLOSE = 1e-6
_OF_SPACE: dict[str, Callable[[Level], bool]] = {
    "vp": lambda level: abs(level.alpha**2 + level.sigma**2 - 1) < _CLOSE,
    "ve": lambda level: level.alpha == 1,
    "flow": lambda level: abs(level.alpha + level.sigma - 1) < _CLOSE,
}
_RULE = {"vp": "alpha^2 + sigma^2 = 1", "ve": "alpha = 1", "flow": "alpha + sigma = 1"}
