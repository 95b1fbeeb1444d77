"""A run in this process: a thread for each lane."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from warpfuse.engine.errors import WarpfuseError, typed_line
from warpfuse.graph.control.messages import Applied
from warpfuse.graph.control.run import Progress, Run
from warpfuse.graph.errors import StageFailed
from warpfuse.graph.metrics.meters import FrameCounts, Stats
from warpfuse.graph.metrics.report import stats_of
from warpfuse.graph.metrics.trace import Span
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.plan.live_settings import LiveSettings
from warpfuse.graph.plan.placement import workers_of
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.failures import IN_A_ROW, Faults, StageFault
from warpfuse.graph.runtime.resume import resume_after
from warpfuse.graph.runtime.source_runner import ResumePoint
from warpfuse.graph.runtime.worker import Worker, snapshot
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.hooks.hooks_file import settings_hook

_TICK_S = 0.1


class ThreadRun:
    """A `Run` in threads: `open` opens every stage, `start` starts every thread, `close` frees the links.

    The creator of the context closes it after the run.

    keys      the configuration's keys as the user gave them; None: all keys of the context's configuration
    temporal  build the branch that carries the last picture even if its weight is 0 now; None: only if it is not 0
    failures  failures of one stage in a row that end the run; fewer cost a frame each
    expected  number of frames the run will show; None: unknown
    """

    def __init__(
        self,
        context: RunContext,
        endpoints: Endpoints,
        *,
        keys: Mapping[str, Any] | None = None,
        temporal: bool | None = None,
        failures: int = IN_A_ROW,
        expected: int | None = None,
    ) -> None:
        config = context.config
        self.context = context
        self.book = SettingsBook(config)
        about, live = context.bundle.about, endpoints.live
        self.plan: GraphPlan = plan_graph(
            config, temporal=temporal, calls=context.calls, printed=about.printed, remembers=about.remembers, live=live
        )
        given = dict(keys) if keys is not None else config.model_dump(mode="json")
        settled = config if keys is None else validate(given)
        self._live = LiveSettings(
            given, settled, self.plan, context.calls, context.prompts, live, about.attention is not None, about.splits
        )
        self._hook = settings_hook(config.hooks, context.say)
        self._expected = expected
        self._changing = threading.Lock()
        self._closing = False
        self._news = threading.Event()
        self._faults = Faults(failures, self._news.set)
        self._epochs = 0
        self._lost: list[StageFault] = []
        (name,) = workers_of(self.plan)
        self.worker = Worker(name, self.plan, context, endpoints, self.book, self._faults, self._stopped)

    @property
    def streams(self) -> Mapping[str, Run]:
        """As `Run` says."""
        return {"": self}

    def open(self) -> None:
        """Open every stage. Raises BadInput; then nothing is left open."""
        self.worker.open()

    def start(self) -> None:
        """Start the thread of every lane."""
        for link in self.plan.bypasses:
            self.worker.open_bypass(link.name, 1)
        self._connect(ResumePoint())

    def wait(self, progress: Progress | None = None) -> Stats:
        """Wait until every thread has ended. Returns the figures. Messages of the source go to the context's `say`.

        Raises the error of the stage that ended the run if it is a WarpfuseError, else StageFailed from it; SourceLost,
        with the figures, when the source was lost for good.
        """
        while self.worker.busy or self._news.is_set():
            self._news.wait(_TICK_S)
            self._news.clear()
            if (spared := self._faults.take()) and self._faults.error is None:
                self._begin_anew(spared)
            for line in self.worker.news():
                self.context.say(line)
            if progress is not None and self.worker.sinks:
                progress(self.worker.sinks[0].frames, self._expected)
        if self._faults.error is None:
            assert self.worker.ended, "a thread ended without a recorded error"
            return concluded(self.stats(), self.context.say)
        if isinstance(self._faults.error, WarpfuseError):
            raise self._faults.error
        raise StageFailed(str(self._faults.stage), self._faults.error) from self._faults.error

    def close(self) -> None:
        """As `Run` says. A second call does nothing."""
        if not self._closing:
            self._closing = True
            self.worker.close()

    @property
    def alive(self) -> bool:
        """Every thread is running."""
        return self.worker.alive

    @property
    def paused(self) -> bool:
        """As `Run` says."""
        return self.worker.source is not None and self.worker.source.paused

    def settings(self) -> dict[str, Any]:
        """As `Run` says."""
        return self._live.config.model_dump(mode="json")

    def check(self, keys: Mapping[str, Any]) -> None:
        """Raise BadInput if the settings cannot be changed by these keys."""
        with self._changing:
            self._live.checked(self._hook(keys))

    def change(self, keys: Mapping[str, Any]) -> Applied:
        """As `Run` says."""
        asked_ns = self.context.clock()
        with self._changing:
            keys = self._hook(keys)
            change = self._live.timed(keys)
            return Applied(*self.book.publish(self._live.changed(keys), change, asked_ns))

    def stats(self) -> Stats:
        """The figures so far."""
        lost = tuple(f"frame {f.seq} was dropped: stage {f.stage}: {typed_line(f.error)}" for f in self._lost)
        reports, setup, begun_ns = [self.worker.report()], self.context.setup, self.context.begun_ns
        stats = stats_of(reports, setup, failed=len(self._lost), warnings=lost, begun_ns=begun_ns)
        return stats.stopped(self.context.stop.is_set())

    def counts(self) -> FrameCounts:
        """The frame counts of `stats`. It reads no histogram, so it may be called often."""
        return self.worker.counts(len(self._lost))

    def workers(self) -> dict[str, list[str]]:
        """As `Run` says."""
        return {self.worker.name: [runner.stage_name for runner in self.worker.runners]}

    def spans(self) -> dict[str, list[Span]]:
        """As `Run` says."""
        track = self.context.track
        return {self.worker.name: track.spans() if track is not None else []}

    def pause(self) -> None:
        """As `Run` says."""
        self.worker.pause(True)

    def resume(self) -> None:
        """As `Run` says."""
        self.worker.pause(False)

    def snapshot(self) -> bytes:
        """As `Run` says."""
        return snapshot(self.worker)

    def stop(self) -> None:
        """As `Run` says."""
        self.context.stop.set()

    def _begin_anew(self, spared: list[StageFault]) -> None:
        """Begin a new epoch without the frames that a stage failed on."""
        self.worker.let_go()
        self._lost += spared + self._faults.take()
        reports = [self.worker.report()]
        without = frozenset(fault.seq for fault in self._lost)
        rewind = self.worker.endpoints.rewind and not self.worker.endpoints.live
        sinks = [sink.stage_name for sink in self.worker.sinks]
        self._connect(resume_after(reports, without, rewind=rewind, sinks=sinks))

    def _connect(self, resume: ResumePoint) -> None:
        self._epochs += 1
        self.worker.connect(self._epochs, resume)

    def _stopped(self) -> bool:
        return self._closing or self.context.stop.is_set()


def concluded(stats: Stats, say: Callable[[str], None]) -> Stats:
    """Pass a finished run's warnings to `say` and return its figures. Raises SourceLost, with the figures."""
    for line in stats.warnings:
        say(line)
    if stats.source_lost is not None:
        lost = SourceLost(stats.source_lost)
        lost.stats = stats
        raise lost
    return stats
