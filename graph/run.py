"""Run a graph from its source to its sinks, in one process, a thread for each stage."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.build import Materials, calls_of
from warpfuse.graph.config import GraphConfig
from warpfuse.graph.cores import next_core
from warpfuse.graph.desk import Desk
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.faults import IN_A_ROW, Fault, Faults
from warpfuse.graph.live_settings import LiveSettings
from warpfuse.graph.meters import Stats
from warpfuse.graph.opening import ends_of, prepare_for
from warpfuse.graph.origin import find, folder_for
from warpfuse.graph.placement import workers_of
from warpfuse.graph.plan import GraphPlan, plan_graph
from warpfuse.graph.prometheus import serving
from warpfuse.graph.report import stats_of
from warpfuse.graph.resuming import resume_after
from warpfuse.graph.runner import Clock
from warpfuse.graph.settings import SettingsBook
from warpfuse.graph.source_runner import Resume
from warpfuse.graph.supervisor import Supervisor
from warpfuse.graph.trace import Track, write_chrome
from warpfuse.graph.transports import best
from warpfuse.graph.worker import Ends, Worker
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sinks import check
from warpfuse.stages.stage import VideoInfo

_TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class Watch:
    """Who may look at a run.

    control  `warpfuse ctl` of the same user may, and may change settings
    metrics  port of 127.0.0.1 that Prometheus scrapes
    trace    file that the calls of every stage are written to, at the end
    """

    control: bool = False
    metrics: int | None = None
    trace: Path | None = None


NOBODY = Watch()


def run(
    config: GraphConfig,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    stop: threading.Event | None = None,
    watch: Watch = NOBODY,
) -> Stats:
    """Run a configuration to the end of its source.

    progress  called a few times a second with frames written and, if known, frames expected
    say       called with lines a user should read: the size chosen, the backend taken and why, what was lost
    stop      set it to end the run early; what was written until then is complete
    watch     who may look at the run, and ask things of it

    Raises BadInput before anything is written, StreamLost or StageFailed when the run broke off, Stopped when `stop`
    was set while the source was being connected.
    """
    _check_ends(config)
    stop = stop or threading.Event()
    with contextlib.ExitStack() as undo:
        origin = find(config, undo, stop)
        info = origin.info
        tell = _with_total(progress, info, config) or (lambda frames: None)
        materials = prepare_for(config, info, say)
        undo.callback(materials.close)
        calls, live = calls_of(materials), info.live or config.realtime
        apart = len(workers_of(plan_graph(config, calls=calls, live=live))) > 1
        if apart and config.device.startswith("cuda"):
            best("cuda-ipc", device=config.device, say=say)
        folder = origin.folder or (folder_for(config, undo) if apart or watch.control else "")
        if watch.control:
            say(f"this run is {Path(folder).name}: warpfuse ctl {Path(folder).name} stats")
        plan = plan_graph(config, calls=calls, live=live, folder=folder)
        settings = LiveSettings(config.model_dump(mode="json"), config, plan, calls, materials.prompts, live)
        endpoint = f"ipc://{folder}/control" if watch.control else ""
        if apart:
            traced = watch.trace is not None
            supervisor = Supervisor(
                materials, plan, origin, Path(folder), settings, stop=stop, say=say, endpoint=endpoint, trace=traced
            )
            with serving(supervisor.stats, watch.metrics):
                stats = supervisor.run(tell)
            tracks = supervisor.tracks()
        else:
            track = Track() if watch.trace is not None else None
            running = Running(materials, ends_of(config, info, materials.size, origin.connected), stop, track=track)
            undo.callback(running.close)
            running.open()
            if endpoint:
                undo.enter_context(Desk(endpoint, running.worker, settings, stats=running.stats, stop=stop))
            with serving(running.stats, watch.metrics):
                stats = running.wait(tell, say)
            tracks = {running.worker.name: track.spans() if track is not None else []}
    if watch.trace is not None:
        write_chrome(watch.trace, tracks)
    return concluded(stats, say)


def _check_ends(config: GraphConfig) -> None:
    if not config.source:
        raise ConfigError("no source: give --source PATH, or source: in the graph file")
    if not config.sinks:
        raise ConfigError("no sink: give --sink PATH, or sinks: in the graph file")
    for sink in config.sinks:
        check(sink, source=config.source)


def concluded(stats: Stats, say: Callable[[str], None]) -> Stats:
    """The figures of a run that came to its end, its warnings said. Raises SourceLost, which carries them."""
    for line in stats.warnings:
        say(line)
    if stats.source_lost is not None:
        lost = SourceLost(stats.source_lost)
        lost.stats = stats
        raise lost
    return stats


class Running:
    """A graph in one process: `open` starts every thread, `wait` ends with the figures, `close` frees the links.

    `open` is `prepare` and `start` in one, for who has to open several before the first may begin.

    temporal  build the branch that carries the last picture even if the weight is 0 now; none: only if it is not
    live      the source cannot wait
    failures  in a row, of one stage, that end the run; every other costs a frame
    """

    def __init__(
        self,
        materials: Materials,
        ends: Ends,
        stop: threading.Event,
        *,
        temporal: bool | None = None,
        failures: int = IN_A_ROW,
        clock: Clock = time.monotonic_ns,
        track: Track | None = None,
    ) -> None:
        config = materials.config
        self.materials = materials
        self.stop = stop
        self.book = SettingsBook(config)
        self.calls = calls_of(materials)
        self.plan: GraphPlan = plan_graph(config, temporal=temporal, calls=self.calls, live=ends.live)
        self._closing = False
        self._news = threading.Event()
        self._faults = Faults(failures, self._news.set)
        self._epochs = 0
        self._lost: list[Fault] = []
        (name,) = workers_of(self.plan)
        self.worker = Worker(
            name,
            self.plan,
            materials,
            ends,
            self.book,
            self._faults,
            self._stopped,
            clock=clock,
            track=track,
            core=next_core(config.device),
        )

    def open(self) -> None:
        """Open every stage and start its thread. Raises BadInput; then nothing was started and nothing is left."""
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Open every stage. Raises BadInput; then nothing is left."""
        self.worker.open()

    def start(self) -> None:
        """Start the thread of every stage."""
        for link in self.plan.bypasses:
            self.worker.open_bypass(link.name, 1)
        self._connect(Resume())

    def live_settings(self, keys: dict[str, Any], config: GraphConfig) -> LiveSettings:
        """What may change of `config`, which came from `keys`, while this graph runs."""
        return LiveSettings(keys, config, self.plan, self.calls, self.materials.prompts, self.worker.ends.live)

    def wait(
        self, progress: Callable[[int], None] | None = None, say: Callable[[str], None] = lambda line: None
    ) -> Stats:
        """Until every thread has ended; `say` gets what the source tells of itself.

        Raises what the first failed stage raised, or StageFailed around it.
        """
        while self.worker.busy or self._news.is_set():
            self._news.wait(_TICK_S)
            self._news.clear()
            if (spared := self._faults.take()) and self._faults.error is None:
                self._begin_anew(spared)
            for line in self.worker.news():
                say(line)
            if progress is not None and self.worker.sinks:
                progress(self.worker.sinks[0].frames)
        if self._faults.error is None:
            assert self.worker.ended, "a thread ended without a recorded error"
            return self.stats()
        if isinstance(self._faults.error, WarpfuseError):
            raise self._faults.error
        raise StageFailed(str(self._faults.stage), self._faults.error) from self._faults.error

    def close(self) -> None:
        """End the run if it has not ended, and free everything; sinks that are not complete discard."""
        self._closing = True
        self.worker.close()

    @property
    def alive(self) -> bool:
        """Every thread is at work."""
        return all(runner.is_alive() for runner in self.worker.runners)

    def stats(self) -> Stats:
        """The figures so far."""
        lost = tuple(f"frame {f.seq} was dropped: stage {f.stage}: {_one_line(f.error)}" for f in self._lost)
        return stats_of([self.worker.report()], self.materials, failed=len(self._lost), warnings=lost).stopped(
            self.stop.is_set()
        )

    def _begin_anew(self, spared: list[Fault]) -> None:
        """A new epoch behind frames that a stage failed at."""
        self.worker.let_go()
        self._lost += spared + self._faults.take()
        reports = [self.worker.report()]
        without = frozenset(fault.seq for fault in self._lost)
        rewind = self.worker.ends.rewind and not self.worker.ends.live
        sinks = [sink.stage_name for sink in self.worker.sinks]
        self._connect(resume_after(reports, without, rewind=rewind, sinks=sinks))

    def _connect(self, resume: Resume) -> None:
        self._epochs += 1
        self.worker.connect(self._epochs, resume)

    def _stopped(self) -> bool:
        return self._closing or self.stop.is_set()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _with_total(
    progress: Callable[[int, int | None], None] | None, info: VideoInfo, config: GraphConfig
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    expected = frames_expected(info, config)
    return lambda frames: progress(frames, expected)


def frames_expected(info: VideoInfo, config: GraphConfig) -> int | None:
    """How many frames a run will show, where that is known."""
    return min((n for n in (info.frames, config.frames) if n is not None), default=None)
