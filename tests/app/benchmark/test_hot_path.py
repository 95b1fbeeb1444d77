"""What a frame may cost, counted and not timed: fresh memory, copies, network calls, messages.

The figures below are those of the code as it is. Each law allows a little more, for other versions of Python and
libraries, and fails where something is made, copied, called or sent once more than it was: the controls add just that.
Who makes a path cheaper writes the new figure down, which a last law asks for.
"""

import tracemalloc

import pytest
import torch
import zmq
from support.host_work import SETTLING, HostWork
from torch.utils._python_dispatch import TorchDispatchMode

from warpfuse.benchmark.ways import pictures_of
from warpfuse.graph.links import inlet as inlet_module
from warpfuse.graph.links import outlet as outlet_module
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.slots import SlotTable
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.runtime.context import prepare
from warpfuse.stages.frame import Frame, Stamp

SIZE = (256, 256)
LARGE = 1 << 14  # bytes from which on memory is counted

FIGURES = {
    "upload": (768, 1),
    "encode": (128, 1),
    "flow": (880, 1588),
    "warp": (1536, 258),
    "encode_past": (128, 1),
    "predict": (768, 14),
    "fuse": (384, 2),
    "decode": (768, 1),
    "composite": (3840, 258),
    "download": (192, 1),
}
"""stage: KiB of large tensors made; KiB of arrays alive at once beyond those before."""

NETWORK_CALLS = {"encoder": 1, "encoder_past": 1, "unet": 1, "decoder": 1, "lines": 1}
LINKS = 7  # of the graph of a file and a bundle that draws lines, in one process
HOP_MESSAGES = 2  # a frame there, a credit back


class Made(TorchDispatchMode):
    """Bytes of the large tensors that operations gave in memory of their own."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {x.untyped_storage().data_ptr() for x in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for x in _tensors(out):
            if x.untyped_storage().data_ptr() not in given and x.nbytes >= LARGE:
                self.bytes += x.nbytes
        return out


def _tensors(x):
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, dict):
        yield from _tensors(list(x.values()))
    elif isinstance(x, list | tuple):
        for one in x:
            yield from _tensors(one)


def made_in(work):
    with Made() as made:
        out = work()
    return made.bytes / 1024, out


def alive_in(work):
    tracemalloc.start(1)
    try:
        out = work()
        return tracemalloc.get_traced_memory()[1] / 1024, out
    finally:
        tracemalloc.stop()


class Watched:
    """A stage whose calls are measured by the loop's `measure`."""

    def __init__(self, name, stage, loop):
        self.name, self.stage, self.loop = name, stage, loop

    def __call__(self, **inputs):
        if self.loop.measure is None:
            return self.stage(**inputs)
        figure, out = self.loop.measure(lambda: self.stage(**inputs))
        self.loop.counted[self.name].append(figure)
        return out

    def close(self):
        self.stage.close()


class Counting(HostWork):
    """Counts every stage over one frame, two ways. extra: name of a stage -> what is done after it as well."""

    def __init__(self, context, extra):
        super().__init__(context)
        self.measure = None
        self.counted = {name: [] for name in self._stages}
        for name, stage in self._stages.items():
            self._stages[name] = Watched(name, _and_then(stage, extra[name]) if name in extra else stage, self)


def _and_then(stage, more):
    class Both:
        def __call__(self, **inputs):
            out = stage(**inputs)
            more(out)
            return out

        def close(self):
            stage.close()

    return Both()


def count(extra=None):
    """(stage -> (KiB made, KiB alive), network -> calls a frame)."""
    config = validate({"source": "pattern:256x256@25,frames=8", "sinks": ["null:"], "size": "256x256", "threads": 1})
    with Counting(prepare(config, SIZE, lambda line: None), extra or {}) as loop:
        pictures = iter(pictures_of(config, SIZE))
        for _ in range(SETTLING):
            loop.step(next(pictures))
        before = loop.calls
        for loop.measure in (made_in, alive_in):
            loop.step(next(pictures))
        networks = {name: (number - before[name]) / 2 for name, number in loop.calls.items()}
        return {name: tuple(figures) for name, figures in loop.counted.items()}, networks


def over(counted):
    """Stages that cost more than their figures allow, and of what."""
    room = (lambda kib: 1.02 * kib + 32, lambda kib: 1.05 * kib + 96)
    kinds = ("made", "alive")
    return {
        (name, kind)
        for name, figures in FIGURES.items()
        for kind, figure, got, allowed in zip(kinds, figures, counted[name], room, strict=True)
        if got > allowed(figure)
    }


@pytest.fixture(scope="module")
def counted():
    return count()


def test_a_frame_costs_no_more_than_it_did(counted):
    stages, networks = counted
    assert stages.keys() == FIGURES.keys()
    assert over(stages) == set(), stages
    assert networks == NETWORK_CALLS


def test_figures_are_those_of_the_code(counted):
    """A figure far above what is needed guards nothing."""
    for name, figures in FIGURES.items():
        for figure, got in zip(figures, counted[0][name], strict=True):
            assert got >= 0.7 * figure - 32, f"{name} got cheaper: {counted[0][name]}. Write it into FIGURES"


def test_a_copy_of_a_picture_is_noticed():
    """The control: one copy of what decode gives, as a tensor and as an array."""
    assert ("decode", "made") in over(count({"decode": lambda out: out.rgb.clone()})[0])
    kept = []
    assert ("decode", "alive") in over(count({"decode": lambda out: kept.append(out.rgb.numpy().copy())})[0])


def test_a_network_call_is_noticed():
    """The control: a network asked once more."""
    config = validate({"source": "pattern:64x64@25,frames=4", "sinks": ["null:"], "size": "64x64", "steps": 2})
    with HostWork(prepare(config, (64, 64), lambda line: None)) as loop:
        for raw in pictures_of(config, (64, 64)):
            loop.step(raw)
        assert {name: number / 4 for name, number in loop.calls.items()} != NETWORK_CALLS


def hops(monkeypatch, frames, offered=1):
    """Messages of a frame over a link within a process, there and back, in one thread; it is offered so many times."""
    sent = 0
    real = outlet_module.send_parts

    def counting(socket, parts, **options):
        nonlocal sent
        sent += 1
        real(socket, parts, **options)

    monkeypatch.setattr(outlet_module, "send_parts", counting)
    monkeypatch.setattr(inlet_module, "send_parts", counting)
    context = zmq.Context()
    plan = LinkPlan("a->b.frame", "a", "b", "frame")
    table = SlotTable(plan.slots)
    outlet, inlet = Outlet(context, plan, table, 1), Inlet(context, plan, table, 1)

    def one(seq):
        outlet.offer(seq, Frame(Stamp(seq, seq)))
        inlet.receive()
        inlet.take()
        inlet.done()
        outlet.receive()

    try:
        for seq in range(4):
            outlet.receive()
            one(seq)
        sent = 0
        for seq in range(4, 4 + frames * offered):
            one(seq)
        return sent / frames
    finally:
        outlet.close()
        inlet.close()
        context.term()


def test_a_hop_is_two_messages_and_a_frame_makes_few_hops(monkeypatch):
    assert hops(monkeypatch, 20) == HOP_MESSAGES
    assert len(plan_graph(validate({"source": "in.mp4", "sinks": ["out.mp4"]}), printed=True).links) == LINKS


def test_a_word_more_on_a_link_is_noticed(monkeypatch):
    """The control."""
    assert hops(monkeypatch, 20, offered=2) > HOP_MESSAGES
