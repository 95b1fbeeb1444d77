"""The loop of a frame as CUDA graphs: stages that are called one after the other, replayed by one launch.

A graph belongs to one form of frame: a usual one, the first after a cut, a held one. Its memory never moves. What a
frame brings is copied in before the launch, and what the stages give is copied out after it, each by one kernel. The
graphs hold what the stages' own functions launch, so the pictures are those of the stages called one by one.

Note: what is no part of a form. Numbers and prompts of the settings are tensors (`Capturable.reads`) and are copied in
like a frame. So a slider that moves captures nothing. What changes which kernels run, or a number that is no tensor,
is another form: its first frame is called stage by stage, its second one is captured.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.errors import one_line
from warpfuse.stages.frame import Frame, Stamp
from warpfuse.stages.stage import Capturable, Stage, process

MOST_GRAPHS = 8
"""Graphs kept at once; the oldest makes room."""

_MOST_MET = 64
_OWN = ""  # in the place of a port: what a stage reads besides its inputs

V = TypeVar("V")


class LoopCall(NamedTuple):
    """A call of a stage. inputs: frames, or the number of the stage that gives it in the same frame; None: no frame."""

    stamp: Stamp
    inputs: Mapping[str, Frame | int | None]


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph, and where it writes. given: by each stage; left: what each stage reads next; None: what it read."""

    graph: card.Graph
    given: list[Frame]
    left: list[dict[str, Tensor | None]]


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
        form = self._form(calls)
        if form is None:
            return None
        if form not in self._graphs:
            if form not in self._met:  # what is made at a first call must not be made in a capture
                _keep(self._met, form, None, _MOST_MET)
                return None
            _keep(self._graphs, form, self._capture(calls), MOST_GRAPHS)
        captured = self._graphs[form]
        return None if captured is None else self._replay(captured, calls)

    def close(self) -> None:
        """Let the graphs and their memory go, when nothing of them runs any more."""
        if self._graphs:
            card.settle(self._device)
        for held in (self._graphs, self._met, self._memory, self._copied):
            held.clear()

    def _form(self, calls: Sequence[LoopCall]) -> Hashable | None:
        parts = []
        for stage, call in zip(self._stages, calls, strict=True):
            launches = stage.launches() if isinstance(stage, Capturable) else None
            if launches is None:
                return None
            inputs = tuple((port, _form_of(frame)) for port, frame in call.inputs.items())
            parts.append((launches, call.stamp.hold, call.stamp.discontinuity, inputs, _shapes(_reads(stage))))
        return tuple(parts)

    def _capture(self, calls: Sequence[LoopCall]) -> _Captured | None:
        before = [_reads(stage) for stage in self._stages]
        reads = [
            {name: self._place((i, _OWN, name), tensor) for name, tensor in own.items()} for i, own in enumerate(before)
        ]
        fed = [
            {port: self._placed(i, port, frame) for port, frame in call.inputs.items()} for i, call in enumerate(calls)
        ]
        given: list[Frame] = []

        def launch() -> None:
            for stage, call, inputs, own in zip(self._stages, calls, fed, reads, strict=True):
                _rebind(stage, own)
                resolved = {port: given[x] if isinstance(x, int) else x for port, x in inputs.items()}
                out = process(stage, resolved, call.stamp.hold)
                assert isinstance(out, Frame) and out.stamp.seq == call.stamp.seq, "not what `Capturable` asks for"
                given.append(out)

        older = next((one.graph for one in self._graphs.values() if one is not None), None)
        try:
            graph = card.captured(card.current(self._device), launch, older)
            after = [_reads(stage) for stage in self._stages]
        except Exception as error:  # noqa: BLE001  called one by one it works or says why; told here
            self._say(f"the loop runs stage by stage: it cannot be captured: {one_line(error, 300)}")
            return None
        finally:
            for stage, own in zip(self._stages, before, strict=True):
                _rebind(stage, own)
        left = [
            {name: None if tensor is own.get(name) else tensor for name, tensor in now.items()}
            for now, own in zip(after, reads, strict=True)
        ]
        return _Captured(graph, given, left)

    def _replay(self, captured: _Captured, calls: Sequence[LoopCall]) -> list[Frame | None]:
        own = [_reads(stage) for stage in self._stages]
        self._copy_in(calls, own)
        captured.graph.replay()
        frames = [frame.tensors if i in self._wanted else {} for i, frame in enumerate(captured.given)]
        left = [{name: x for name, x in now.items() if x is not None} for now in captured.left]
        out = iter(_copies([x for tensors in (*frames, *left) for x in tensors.values()]))
        given: list[Frame | None] = []
        for i, (frame, call) in enumerate(zip(captured.given, calls, strict=True)):
            mine = {name: next(out) for name in frames[i]}
            given.append(type(frame).of(call.stamp, mine) if i in self._wanted else None)
        for stage, before, now in zip(self._stages, own, captured.left, strict=True):
            if any(x is not None for x in now.values()) or now.keys() != before.keys():
                _rebind(stage, {name: before[name] if x is None else next(out) for name, x in now.items()})
        return given

    def _copy_in(self, calls: Sequence[LoopCall], reads: Sequence[Mapping[str, Tensor]]) -> None:
        """What the graph reads: of frames all, of what stages read what is another tensor than the last time."""
        due: list[tuple[Hashable, Tensor]] = []
        for i, (call, own) in enumerate(zip(calls, reads, strict=True)):
            for port, frame in call.inputs.items():
                if isinstance(frame, Frame):
                    due += [((i, port, name), tensor) for name, tensor in frame.tensors.items()]
            for name, tensor in own.items():
                at = i, _OWN, name
                if self._copied.get(_key(at, tensor)) is not tensor:
                    self._copied[_key(at, tensor)] = tensor
                    due.append((at, tensor))
        if due:
            torch._foreach_copy_([self._place(at, tensor) for at, tensor in due], [tensor for _, tensor in due])

    def _place(self, at: Hashable, tensor: Tensor) -> Tensor:
        """The memory for tensors of this form at this place."""
        key = _key(at, tensor)
        if key not in self._memory:
            self._memory[key] = torch.empty_like(tensor)
        return self._memory[key]

    def _placed(self, i: int, port: str, frame: Frame | int | None) -> Frame | int | None:
        if not isinstance(frame, Frame):
            return frame
        return type(frame).of(frame.stamp, {name: self._place((i, port, name), x) for name, x in frame.tensors.items()})


def _keep(held: dict[Hashable, V], key: Hashable, value: V, most: int) -> None:
    if len(held) >= most:
        del held[next(iter(held))]
    held[key] = value


def _reads(stage: Stage) -> dict[str, Tensor]:
    assert isinstance(stage, Capturable)
    return stage.reads


def _rebind(stage: Stage, tensors: Mapping[str, Tensor]) -> None:
    assert isinstance(stage, Capturable)
    stage.rebind(tensors)


def _form_of(frame: Frame | int | None) -> Hashable:
    return (type(frame), _shapes(frame.tensors)) if isinstance(frame, Frame) else frame


def _shapes(tensors: Mapping[str, Tensor]) -> Hashable:
    return tuple((name, x.dtype, x.shape) for name, x in tensors.items())


def _key(at: Hashable, tensor: Tensor) -> Hashable:
    return at, tensor.dtype, tensor.shape


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    """In memory of the caller."""
    fresh = [torch.empty_like(x) for x in tensors]
    if fresh:
        torch._foreach_copy_(fresh, tensors)
    return fresh
