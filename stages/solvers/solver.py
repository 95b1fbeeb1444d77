"""What a solver is: a plan of network calls, each with a pure function from one pair to the next.

Note: a plan of calls instead of a callback. A solver that called the network itself would own the loop, and a stream
batch could not run it: there one network call holds rows of many frames, each at its own place in its own schedule. So
a solver only *says* what happens between two network calls. `plan` lists a frame's calls in order; Heun's step has two
of them. Row k of a stream batch is simply call k, and what a row has to remember from one call to the next (Heun's
first pair) is a value that moves along with it. Running one frame alone is the same thing in a loop:

    for call in solver.plan(levels):
        x0, n = split(x, network(network_input(x, call.level), call.seen), call.level, prediction)
        x0, n, memory = call.advance(x, x0, n, z, memory)
        # here, if call.finished: fuse a reference into (x0, n)
        x = compose(x0, n, call.level_next)

Everything that depends on levels or options alone is settled when the plan is made; `advance` multiplies and adds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from warpfuse.engine.errors import BadInput
from warpfuse.stages.solvers.network import seen_by_network
from warpfuse.stages.solvers.pair import CLEAN, Level

Memory = tuple[Tensor, ...]
"""What a row carries from one call to the next; () where a step begins. A cut in the stream resets it to ()."""

Advance = Callable[[Tensor, Tensor, Tensor, Tensor | None, Memory], tuple[Tensor, Tensor, Memory]]
"""(x, x0, n, z, memory) -> (x0', n', memory'), all [b, c, h, w]: pure, arithmetic in float32 at least.

x, x0, n  the latent at `call.level` and what the network said of it: x = alpha x0 + sigma n
z         unit noise independent of n: fresh, or in a stream the slot's own; None where the call needs none
"""


class SolverError(BadInput):
    """A solver that does not exist, options it does not have, or levels it does not solve on."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the network and what follows from it.

    level        of the x that the network is asked about
    seen         the same level as the network knows it (`network.py`): what it is told
    level_next   (x0', n') is composed to this level for the next call; after the last, to the end of the plan
    advance      (x, x0, n, z, memory) -> (x0', n', memory')
    needs_noise  advance takes z
    finished     the pair is a step's result, and references may be fused into it. False inside a step: fusing into
                 Heun's trial point would be undone by the correction
    rho          correlation of n' with z: 1 for a call that makes the latent noisy again with it, 0 for one that only
                 keeps the predicted n. What a fusion that takes z for its reference's noise has to rescale by
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
    """A solver: a value without state, safe to share.

    name         its file's name
    space        the family of its levels: "vp" alpha^2 + sigma^2 = 1, "ve" alpha = 1, "flow" alpha + sigma = 1
    order        of convergence with the number of steps on the probability-flow ODE (a stochastic one: in
                 distribution); 0: it jumps to x0 and relies on a network that was distilled to do so
    needs_noise  some call takes z
    step         (level, level_next) -> the calls of one step
    """

    name: str
    space: str
    order: int
    needs_noise: bool
    step: Callable[[Level, Level], tuple[Call, ...]]

    def plan(self, levels: Sequence[Level], end: Level = CLEAN) -> tuple[Call, ...]:
        """Every network call of a frame, in order.

        levels  noisiest first, each of the solver's space; the latent starts at the first
        end     where the last step goes. At sigma = 0 the composed latent is x0 and no noise is needed; some
                checkpoints end at their table's lowest level instead

        Raises SolverError: no levels, levels of another space, or levels that do not fall.
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
    """The calls of a step that asks the network once."""
    return (Call(level, seen_by_network(level), level_next, advance, needs_noise, finished=True, rho=rho),)


def keep(x: Tensor, x0: Tensor, n: Tensor, z: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
    """x0' = x0, n' = n: Euler's step, whatever the family, and every solver's way to sigma = 0."""
    return x0, n, ()


def need_noise(z: Tensor | None, name: str) -> Tensor:
    """The z a call needs. Raises SolverError when it was not given."""
    if z is None:
        raise SolverError(f"solver {name!r} needs noise z for this call, got None: give what `needs_noise` asks for")
    return z


def mix(first: tuple[float, Tensor], *others: tuple[float, Tensor]) -> Tensor:
    """The sum of gain * tensor, computed in float32 at least, in the dtype of the first tensor."""
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
