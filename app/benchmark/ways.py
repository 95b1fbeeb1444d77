"""Four measurements of speed: each network alone, and whole frames between three pairs of ends.

Measurements that are compared are made in turns (`turns.there_and_back`), so that a change of the machine's speed
affects all of them.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from warpfuse.benchmark.calls import NetworkCall
from warpfuse.benchmark.figure import Figure
from warpfuse.benchmark.loop import PlainLoop
from warpfuse.benchmark.machine import Machine
from warpfuse.benchmark.resources import PowerMeter, gpu_mib, host_peak_mib
from warpfuse.benchmark.turns import TURNS, there_and_back
from warpfuse.engine.device import settle
from warpfuse.engine.errors import BadInput
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.runtime.context import RunContext, prepare, prepare_source
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.frame import Picture, RawFrame, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import Sink, Source, VideoInfo

WARM_UP = 3
_MOST = 32  # pictures kept in memory; longer runs repeat them


def networks(context: RunContext, calls: Sequence[NetworkCall], machine: Machine, seconds: float) -> list[Figure]:
    """Figures of each network alone, measured in turns."""
    figures = [Figure(call.name, call.work.floor_ms(machine), calls=call.times) for call in calls]

    def one(call: NetworkCall, figure: Figure) -> None:
        engine = context.engines.open(call.path, {name: tuple(x.shape) for name, x in call.feeds.items()})
        with _watched(figure, context.config.device):
            figure.ms += list(_timed(partial(engine, call.feeds), seconds / TURNS / len(calls), engine.device))
        engine.close()

    there_and_back([partial(one, call, figure) for call, figure in zip(calls, figures, strict=True)])
    return figures


@contextlib.contextmanager
def _watched(figure: Figure, device: str) -> Iterator[None]:
    """Add power, memory and the rate to the figure at the end of the block."""
    power = PowerMeter(device)
    yield
    figure.watts, figure.gpu_mib, figure.host_mib = power.watts(), gpu_mib(device), host_peak_mib()
    figure.fps = 1000 / statistics.mean(figure.ms)


def _timed(work: Callable[[], object], seconds: float, device: str) -> Iterator[float]:
    """Yield the milliseconds of each call, with the device idle before."""
    for _ in range(WARM_UP):
        work()
    settle(device)
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        work()
        settle(device)
        yield 1000 * (time.perf_counter() - begun)


def pictures_of(config: GraphConfig, size: tuple[int, int]) -> list[RawFrame]:
    """The first pictures of the source."""
    source = open_source(config.source, size=size, frames=_MOST)
    try:
        return list(iter(source.read, None))
    finally:
        source.close()


def on_device(config: GraphConfig, pictures: Sequence[RawFrame], figure: Figure, seconds: float) -> None:
    """Measure from a picture on the device to a picture on the device: stages in a plain loop, in one thread, without
    links. The times are added to `figure`."""
    device = config.device
    with PlainLoop(prepare(config, _shape(pictures[0]), lambda line: None)) as loop:
        frames = [
            Picture(raw.stamp, torch.from_numpy(raw.rgb).to(device).permute(2, 0, 1)[None].float() / 255)
            for raw in pictures
        ]
        turn = _counting(frames)
        with _watched(figure, device):
            figure.ms += list(_timed(lambda: loop.step_on_device(next(turn)), seconds, device))


def host_to_host(context: RunContext, pictures: Sequence[RawFrame], figure: Figure, frames: int) -> None:
    """Measure from uint8 pictures in host memory to the same, through the graph. Closes the context."""
    _through_the_graph(figure, context, PicturesInMemory(pictures, frames), Timing())


def source_to_sink(config: GraphConfig, figure: Figure, frames: int) -> None:
    """Measure from a source to a file, with decoding and encoding of video."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as undo:
        info, context = prepare_source(config)
        undo.callback(context.close)
        source = open_source(config.source, size=context.size, frames=frames)
        sink = Timing(open_sink(str(Path(folder) / "out.mp4"), info, context.size))
        undo.pop_all()
        _through_the_graph(figure, context, source, sink)


def _through_the_graph(figure: Figure, context: RunContext, source: Source, sink: "Timing") -> None:
    """Run the graph and add its times to `figure`. Closes context, source and sink."""
    run = ThreadRun(context, Endpoints(lambda: source, lambda url: sink, rewind=False), failures=1)
    try:
        with _watched(figure, context.config.device):
            run.open()
            run.start()
            run.wait()
            warm = sink.at[WARM_UP:]
            if len(warm) < 2:
                raise BadInput(
                    f"{context.config.source} has {len(sink.at)} frames; {WARM_UP + 2} are needed to measure"
                )
            figure.ms += [1000 * (later - earlier) for earlier, later in pairwise(warm)]
    finally:
        run.close()
        context.close()
        source.close()


def _shape(raw: RawFrame) -> tuple[int, int]:
    return raw.rgb.shape[1], raw.rgb.shape[0]


def _counting(frames: Sequence[Picture]) -> Iterator[Picture]:
    """Yield the pictures repeatedly, with new numbers."""
    seq = 0
    while True:
        frame = frames[seq % len(frames)]
        yield replace(frame, stamp=Stamp(seq, seq * 40_000_000))
        seq += 1


class PicturesInMemory:
    """A source that repeats pictures in memory."""

    warning = None

    def __init__(self, pictures: Sequence[RawFrame], frames: int) -> None:
        self._pictures, self._frames, self._seq = pictures, frames, 0
        self.info = VideoInfo(*_shape(pictures[0]), Fraction(25), Fraction(1, 1_000_000_000))

    def read(self) -> RawFrame | None:
        """The next picture."""
        if self._seq == self._frames:
            return None
        rgb = self._pictures[self._seq % len(self._pictures)].rgb
        self._seq += 1
        return RawFrame(Stamp(self._seq - 1, self._seq * 40_000_000), rgb)

    def close(self) -> None:
        """Do nothing."""


class Timing:
    """A sink that records the time of each frame, and passes the frames to another sink, if any.

    start  returns the time of the first frame after warming up, and may wait for other streams
    """

    def __init__(self, sink: Sink | None = None, start: Callable[[], float] = time.perf_counter) -> None:
        self.notes: list[str] = []
        self.at: list[float] = []
        self._sink = sink
        self._start = start

    def write(self, frame: RawFrame) -> None:
        """Write the frame and record the time."""
        if self._sink is not None:
            self._sink.write(frame)
        self.at.append(self._start() if len(self.at) == WARM_UP else time.perf_counter())

    def close(self, complete: bool) -> None:
        """Close the other sink."""
        if self._sink is not None:
            self._sink.close(complete)
