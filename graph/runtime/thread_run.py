"""A graph in this process, while it runs: a thread for each lane."""

import threading
import time
from collections.abc import Callable
from typing import Any

from warpfuse.engine.errors import WarpfuseError, typed_line
from warpfuse.graph.errors import StageFailed
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.report import stats_of
from warpfuse.graph.metrics.trace import Track
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.plan.live_settings import LiveSettings
from warpfuse.graph.plan.placement import workers_of
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.build import Materials, calls_of
from warpfuse.graph.runtime.endpoints import Ends
from warpfuse.graph.runtime.failures import IN_A_ROW, Fault, Faults
from warpfuse.graph.runtime.resume import resume_after
from warpfuse.graph.runtime.runner import Clock
from warpfuse.graph.runtime.source_runner import Resume
from warpfuse.graph.runtime.worker import Worker

_TICK_S = 0.1


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
        self.plan: GraphPlan = plan_graph(
            config, temporal=temporal, calls=self.calls, printed=materials.bundle.about.printed,
            attends=materials.attends, live=ends.live,
        )  # fmt: skip
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
        live, attends = self.worker.ends.live, self.materials.attends
        return LiveSettings(keys, config, self.plan, self.calls, self.materials.prompts, live, attends)

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
        return self.worker.alive

    def stats(self) -> Stats:
        """The figures so far."""
        lost = tuple(f"frame {f.seq} was dropped: stage {f.stage}: {typed_line(f.error)}" for f in self._lost)
        return stats_of([self.worker.report()], self.materials.setup, failed=len(self._lost), warnings=lost).stopped(
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
