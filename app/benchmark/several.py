"""Measuring several streams at once, from host to host, with shared networks."""

import statistics
import threading
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from warpfuse.benchmark.figure import Figure
from warpfuse.benchmark.resources import PowerMeter, gpu_mib, host_peak_mib
from warpfuse.benchmark.turns import TURNS, there_and_back
from warpfuse.benchmark.ways import WARM_UP, PicturesInMemory, Timing
from warpfuse.engine.errors import BadInput
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.streams import Streams
from warpfuse.graph.runtime.context import open_networks, silent
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.streams_run import StreamsRun
from warpfuse.stages.frame import RawFrame


def several(
    config: GraphConfig, pictures: Sequence[RawFrame], floor_ms: float, frames: int, counts: Sequence[int]
) -> list[Figure]:
    """A figure for each number of streams, measured in turns. Raises BadInput.

    frames  total number of frames of all streams

    fps is the sum over all streams, while all of them run; ms is the interval between two frames of a stream.
    """
    figures = [Figure(f"{count} stream{'s' * (count > 1)}", floor_ms) for count in counts]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    rows: dict[int, list[float]] = {count: [] for count in counts}

    def turn(count: int, figure: Figure) -> None:
        rate, shared = _at_once(config, pictures, max(WARM_UP + 9, frames // TURNS // count), count, figure)
        rates[count].append(rate)
        rows[count].append(shared)

    there_and_back([partial(turn, count, figure) for count, figure in zip(counts, figures, strict=True)])
    for count, figure in zip(counts, figures, strict=True):
        figure.fps, figure.rows = statistics.mean(rates[count]), statistics.mean(rows[count])
        figure.host_mib = host_peak_mib()
    return figures


def _at_once(
    config: GraphConfig, pictures: Sequence[RawFrame], frames: int, count: int, figure: Figure
) -> tuple[float, float]:
    """(frames a second of all streams, rows in a call of the UNet). Intervals are added to `figure`."""
    names = [f"s{number}" for number in range(1, count + 1)]
    streams, info = Streams(dict.fromkeys(names, config)), PicturesInMemory(pictures, frames).info
    networks = open_networks(streams.configs, silent, streams)
    start = Start(count)
    sinks = {name: Timing(start=start) for name in names}
    run = StreamsRun(networks)
    power = PowerMeter(config.device)
    try:
        for name, sink in sinks.items():
            run.put(name, config, info, partial(_ends, pictures, frames, sink))
        run.start()
        unet = run.wait().networks["unet"]
        figure.watts, figure.gpu_mib = power.watts(), gpu_mib(config.device)
    finally:
        run.close()
        networks.close()
    warm = [sink.at[WARM_UP:] for sink in sinks.values()]
    figure.ms += [1000 * (later - earlier) for at in warm for earlier, later in pairwise(at)]
    begun, ended = max(at[0] for at in warm), min(at[-1] for at in warm)
    shown = sum(begun < moment <= ended for at in warm for moment in at)
    if not shown:
        raise BadInput(f"{count} streams were never under way at once in {frames} frames: give more --seconds")
    return shown / (ended - begun), unet["rows"] / unet["calls"]


class Start:
    """The common start of a number of streams: each waits for the others after warming up. Thread-safe.

    Otherwise a short run of one stream could end before the next begins. The wait is limited to `patience_s`.
    """

    def __init__(self, streams: int, patience_s: float = 60.0) -> None:
        self._barrier = threading.Barrier(streams, self._begin, patience_s)
        self._at = 0.0

    def __call__(self) -> float:
        """Wait for the others. Returns the common start time."""
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            return time.perf_counter()
        return self._at

    def _begin(self) -> None:
        self._at = time.perf_counter()


def _ends(pictures: Sequence[RawFrame], frames: int, sink: Timing, size: tuple[int, int]) -> Endpoints:
    return Endpoints(lambda: PicturesInMemory(pictures, frames), lambda url: sink, rewind=False)
