"""The loop of a frame as CUDA graphs: stages that are called one after the other, replayed by one launch.

A graph belongs to one form of frame: a usual one, the first after a cut, a held one. Its memory never moves. What a
frame brings is copied in before the launch, and what the stages give is copied out after it, each by one kernel. The
graphs hold what the stages' own functions launch, so the pictures are those of the stages called one by one.

Note: what is no part of a form. Numbers and prompts of the settings are tensors of the state (`Capturable.state`) and
are copied in like a frame. So a slider that moves captures nothing. What changes which kernels run, or a number that is
no tensor, is another form: its first frame is called stage by stage, its second one is captured.

Note: what stages remember. A graph is captured on a copy of the state whose tensors are in the graph's memory. What the
stages have made of it, rows of a stream batch that moved on and tokens for the next frame, is the state after every
replay, with the tensors and the stamps of the frames of that replay (`state_tree.py`).

Several streams of a run are called stage by stage. They share each network, and which of their rows meet in a call is
only known when it is made (`graph/runtime/shared_engine.py`); a graph has a fixed number of rows in fixed memory, and
its launches could not wait for another stream. While one stream's stages are launched the card works for the others.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.errors import one_line
from warpfuse.stages.frame import Frame, Stamp
from warpfuse.stages.stage import Capturable, Stage, process
from warpfuse.stages.state_tree import Leaves, Path, leaves_of, with_leaves

MOST_GRAPHS = 8
"""Graphs kept at once; the oldest makes room."""

_MOST_MET = 64
_CALLS, _STATES = 0, 1  # the branches of all that a graph reads

V = TypeVar("V")


class LoopCall(NamedTuple):
    """A call of a stage. inputs: frames, or the number of the stage that gives it in the same frame; None: no frame."""

    stamp: Stamp
    inputs: Mapping[str, Frame | int | None]


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph, and what its stages made while it was captured.

    stamps  of the frames that it read, in the order of the leaves
    made    what each wanted stage gave, and the state that each stage was left with
    out     tensors of `made` that are copied out
    kept    tensors of `made` that are those of the state before: their places, by id
    """

    graph: card.Graph
    stamps: list[Stamp]
    made: tuple[list[Frame | None], list[Any]]
    out: list[Tensor]
    kept: dict[int, Path]


class Loop:
    """Replays the calls of some stages on a card. It owns the graphs; the stages stay their owner's.

    stages  in the order in which they are called
    wanted  numbers of the stages whose frames are needed; what it gives of the others is None
    say     called with a line when a form of frame cannot be captured

    Always called on the same stream.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        wanted: Iterable[int],
        device: str,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stages, self._wanted = list(stages), frozenset(wanted)
        self._device, self._say = device, say
        self._graphs: dict[Hashable, _Captured | None] = {}
        self._met: dict[Hashable, None] = {}
        self._memory: dict[Hashable, Tensor] = {}
        self._copied: dict[Hashable, Tensor] = {}

    def __call__(self, calls: Sequence[LoopCall]) -> list[Frame | None] | None:
        """The frames that the stages give, in memory of the caller; None: call them one by one, nothing was done."""
        stages = [stage for stage in self._stages if isinstance(stage, Capturable)]
        if len(stages) < len(self._stages):
            return None
        launched = [stage.prepare(*call) for stage, call in zip(stages, calls, strict=True)]
        if None in launched:
            return None
        read = calls, [stage.state for stage in stages]
        leaves = leaves_of(read)
        form = tuple(launched), leaves.form
        if form not in self._graphs:
            if form not in self._met:  # what is made at a first call must not be made in a capture
                _keep(self._met, form, None, _MOST_MET)
                return None
            _keep(self._graphs, form, self._capture(stages, read, leaves), MOST_GRAPHS)
        captured = self._graphs[form]
        return None if captured is None else self._replay(stages, captured, leaves)

    def close(self) -> None:
        """Let the graphs and their memory go, when nothing of them runs any more."""
        if self._graphs:
            card.settle(self._device)
        for held in (self._graphs, self._met, self._memory, self._copied):
            held.clear()

    def _capture(
        self, stages: Sequence[Capturable], read: tuple[Sequence[LoopCall], list[Any]], leaves: Leaves
    ) -> _Captured | None:
        places = {id(x): self._place(path, x) for path, x in leaves.tensors.items()}
        calls, states = with_leaves(read, lambda x: places[id(x)])
        given: list[Frame | None] = []

        def launch() -> None:
            for stage, call, state in zip(self._stages, calls, states, strict=True):
                _remember(stage, state)
                inputs = {port: given[x] if isinstance(x, int) else x for port, x in call.inputs.items()}
                out = process(stage, inputs, call.stamp.hold)
                assert out is None or isinstance(out, Frame), "not what `Capturable` asks for"
                given.append(out)

        older = next((one.graph for one in self._graphs.values() if one is not None), None)
        try:
            graph = card.captured(card.current(self._device), launch, older)
            left = [stage.state for stage in stages]
        except Exception as error:  # noqa: BLE001  called one by one it works or says why; told here
            self._say(f"the loop runs stage by stage: it cannot be captured: {one_line(error, 300)}")
            return None
        finally:
            for stage, state in zip(self._stages, read[_STATES], strict=True):
                _remember(stage, state)
        made = [frame if i in self._wanted else None for i, frame in enumerate(given)], left
        # Inputs may be memory that is lent for this frame only: what is kept of them is copied.
        kept = {id(places[id(x)]): path for path, x in leaves.tensors.items() if path[0] == _STATES}
        out = [x for x in leaves_of(made).tensors.values() if id(x) not in kept]
        return _Captured(graph, list(leaves.stamps.values()), made, out, kept)

    def _replay(self, stages: Sequence[Capturable], captured: _Captured, leaves: Leaves) -> list[Frame | None]:
        self._copy_in(leaves)
        captured.graph.replay()
        now = {id(x): fresh for x, fresh in zip(captured.out, _copies(captured.out), strict=True)}
        now |= {at: leaves.tensors[path] for at, path in captured.kept.items()}
        stamps = dict(zip((stamp.seq for stamp in captured.stamps), leaves.stamps.values(), strict=True))
        given, states = with_leaves(captured.made, lambda x: now[id(x)], lambda x: stamps[x.seq])
        for stage, state in zip(stages, states, strict=True):
            stage.state = state
        return given

    def _copy_in(self, leaves: Leaves) -> None:
        """What the graph reads: of frames all, of states what is another tensor than the last time."""
        due: list[tuple[Path, Tensor]] = []
        for path, tensor in leaves.tensors.items():
            if path[0] == _CALLS:
                due.append((path, tensor))
            elif self._copied.get(_key(path, tensor)) is not tensor:
                self._copied[_key(path, tensor)] = tensor
                due.append((path, tensor))
        if due:
            torch._foreach_copy_([self._place(path, tensor) for path, tensor in due], [tensor for _, tensor in due])

    def _place(self, path: Path, tensor: Tensor) -> Tensor:
        """The memory for tensors of this form at this place."""
        key = _key(path, tensor)
        if key not in self._memory:
            self._memory[key] = torch.zeros_like(tensor)  # numbers, for a card that computes what it captures
        return self._memory[key]


def _keep(held: dict[Hashable, V], key: Hashable, value: V, most: int) -> None:
    if len(held) >= most:
        del held[next(iter(held))]
    held[key] = value


def _remember(stage: Stage, state: Any) -> None:
    assert isinstance(stage, Capturable)
    stage.state = state


def _key(path: Path, tensor: Tensor) -> Hashable:
    return path, tensor.dtype, tensor.shape


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    """In memory of the caller."""
    fresh = [torch.empty_like(x) for x in tensors]
    if fresh:
        torch._foreach_copy_(fresh, tensors)
    return fresh
