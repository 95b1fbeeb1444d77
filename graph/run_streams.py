"""Run several streams in this process: a graph each, over networks they share. One that fails ends alone."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.control.run_directory import RunDirectory, free_name
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.prometheus import serving
from warpfuse.graph.metrics.trace import Track, write_chrome
from warpfuse.graph.plan.streams import Streams, of_stream, under_name
from warpfuse.graph.processes.resolved_source import Origin, find
from warpfuse.graph.run import NOBODY, Watch, concluded, frames_expected
from warpfuse.graph.runtime.build import Materials
from warpfuse.graph.runtime.desk import Desk
from warpfuse.graph.runtime.endpoints import Ends
from warpfuse.graph.runtime.engines import SharedEngines
from warpfuse.graph.runtime.opening import ends_of, prepare_streams
from warpfuse.graph.runtime.thread_run import Running
from warpfuse.stages.errors import StreamLost
from warpfuse.stages.sinks import check
from warpfuse.stages.sources.schemes import path_of, scheme_of
from warpfuse.stages.stage import VideoInfo

_TICK_S = 0.1

Say = Callable[[str], None]


class StreamRun:
    """One stream while it runs: its graph, a thread that waits for the end of it, and what became of it.

    frames  written so far
    error   why it broke off, under the stream's name; None as long as it did not
    """

    def __init__(self, name: str, materials: Materials, ends: Ends, track: Track | None = None) -> None:
        self.name, self.track = name, track
        self.stop = threading.Event()
        self.running = Running(materials, ends, self.stop, track=track)
        self.frames = 0
        self.error: WarpfuseError | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, say: Say) -> None:
        """Start every stage."""
        self.running.start()
        work = threading.Thread(target=self._live, args=(say,), name=f"wf:stream {self.name}", daemon=True)
        self._thread = work
        work.start()

    @property
    def alive(self) -> bool:
        """It has not come to its end."""
        return self._thread is not None and self._thread.is_alive()

    def stats(self) -> Stats:
        """The figures so far."""
        return self.running.stats()

    def close(self) -> None:
        """End it if it has not ended, and give back its seats at the networks. A second call does nothing."""
        if self.alive:
            self.stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self._closed:
            self._closed = True
            self.running.close()

    def _live(self, say: Say) -> None:
        def tell(line: str) -> None:
            say(f"{self.name}: {line}")

        def progress(frames: int) -> None:
            self.frames = frames

        try:
            concluded(self.running.wait(progress, tell), tell)
        except Exception as error:  # noqa: BLE001  kept, and raised when the other streams are done
            self.error = under_name(self.name, error)
            tell(f"has ended, the others go on: {error}")


def run_streams(
    streams: Streams,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    say: Say = lambda line: None,
    stop: threading.Event | None = None,
    watch: Watch = NOBODY,
) -> Stats:
    """Run every stream to the end of its source; arguments as those of `run.run`, frames are those of all streams.

    Returns the figures of all together, with each one's own in `streams`. Each answers `warpfuse ctl` under its name.
    Raises BadInput before anything is written; StreamLost or StageFailed, after the end of the last stream, when one
    of them broke off: the first of them, with the figures.
    """
    _check_ends(streams)
    stop = stop or threading.Event()
    with contextlib.ExitStack() as undo:
        origins: dict[str, Origin] = {}
        for name, config in streams.configs.items():
            with of_stream(name):
                origins[name] = find(config, undo, stop)
        infos = {name: origin.info for name, origin in origins.items()}
        materials = prepare_streams(streams, infos, say)
        for its in materials.values():
            undo.callback(its.close)
        runs = [_stream(its, origins[name], name, watch) for name, its in materials.items()]
        for run in runs:
            undo.callback(run.close)
            with of_stream(run.name):
                run.running.prepare()
        if watch.control:
            for run in runs:
                undo.enter_context(_desk(run, say))
        with serving(lambda: together(runs), watch.metrics):
            live(runs, say, stop, _with_total(progress, infos, streams))
        stats = together(runs).stopped(stop.is_set())
    if watch.trace is not None:
        write_chrome(watch.trace, {run.name: run.track.spans() for run in runs if run.track is not None})
    for failed in (run.error for run in runs if run.error is not None):
        if isinstance(failed, StreamLost | StageFailed):
            failed.stats = stats
        raise failed
    return stats


def live(runs: Sequence[StreamRun], say: Say, stop: threading.Event, progress: Callable[[int], None]) -> None:
    """Start streams that are prepared, and close each when it has ended. Returns after the last."""
    for run in runs:
        run.start(say)
    left = list(runs)
    while left:
        if stop.is_set():
            for run in left:
                run.stop.set()
        for run in [run for run in left if not run.alive]:
            left.remove(run)
            run.close()
        progress(sum(run.frames for run in runs))
        time.sleep(_TICK_S if left else 0)


def together(runs: Sequence[StreamRun]) -> Stats:
    """The figures of all streams: counts are added, stages and links are `NAME.stage`."""
    first, *others = (run.stats().under(run.name) for run in runs)
    engines = runs[0].running.materials.engines
    return replace(sum(others, first), networks=engines.calls() if isinstance(engines, SharedEngines) else {})


def _stream(materials: Materials, origin: Origin, name: str, watch: Watch) -> StreamRun:
    track = Track() if watch.trace is not None else None
    ends = ends_of(materials.config, origin.info, materials.size, origin.connected)
    return StreamRun(name, materials, ends, track)


@contextlib.contextmanager
def _desk(run: StreamRun, say: Say) -> Iterator[None]:
    running, config = run.running, run.running.materials.config
    settings = running.live_settings(config.model_dump(mode="json"), config)
    with RunDirectory(free_name(run.name)) as folder:
        say(f"stream {run.name} is {folder.name}: warpfuse ctl {folder.name} stats")
        with Desk(f"ipc://{folder.path}/control", running.worker, settings, stats=run.stats, stop=run.stop):
            yield


def _check_ends(streams: Streams) -> None:
    """Raise BadInput for a sink that cannot be opened, is read by a stream, or is written by two."""
    for config in streams.configs.values():
        for sink in config.sinks:
            for other in streams.configs.values():
                check(sink, source=other.source)
    for a, b in combinations(streams.configs, 2):
        twice = {_end(s) for s in streams.configs[a].sinks} & {_end(s) for s in streams.configs[b].sinks} - {"null:"}
        if twice:
            raise ConfigError(f"{min(twice)} is a sink of {a} and of {b}: each stream needs its own")


def _end(sink: str) -> str:
    """What is written, whatever way it is called."""
    return str(path_of(sink).resolve()) if scheme_of(sink) == "file" else sink


def _with_total(
    progress: Callable[[int, int | None], None] | None, infos: Mapping[str, VideoInfo], streams: Streams
) -> Callable[[int], None]:
    if progress is None:
        return lambda frames: None
    known = [frames_expected(infos[name], config) for name, config in streams.configs.items()]
    total = sum(n for n in known if n is not None) if None not in known else None
    return lambda frames: progress(frames, total)
