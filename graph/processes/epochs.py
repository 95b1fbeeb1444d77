"""The epochs of a run over several workers.

All of a run's links belong to one. Whatever goes wrong in it ends it for all; the next begins where it broke off.
"""

import logging
import time
from collections.abc import Callable, Sequence

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.pool import WorkerPool
from warpfuse.graph.processes.remote_errors import ENDS_THE_RUN, error_of
from warpfuse.graph.runtime.failures import Streak
from warpfuse.graph.runtime.resume import resume_after

_LOG = logging.getLogger("warpfuse")

LET_GO_S = 2.0
"""How long a worker may take to let go of its links."""


class Epochs:
    """Begins them and breaks them off. One thread uses it.

    sinks   names of all
    rewind  a file: it goes on at the first frame that some sink lacks; else with what comes next
    number  of the epoch that was begun last, 0 before the first
    failed  frames that a stage raised at: the run goes on without them
    told    what is said of each of them at the end
    """

    def __init__(self, pool: WorkerPool, sinks: Sequence[str], *, rewind: bool, say: Callable[[str], None]) -> None:
        self._pool, self._sinks, self._rewind, self._say = pool, sinks, rewind, say
        self._streak = Streak()
        self.number = 0
        self.failed: set[int] = set()
        self.told: list[str] = []

    def begin(self, first: Sequence[protocol.Command] = ()) -> None:
        """Begin the next, with every worker; first: orders that hold from its beginning."""
        at = resume_after(
            self._pool.reports(),
            frozenset(self.failed),
            rewind=self._rewind,
            sinks=self._sinks,
            first=self.number == 0,
        )
        self.number += 1
        for handle in self._pool.handles:
            handle.state, handle.beat_s = "running", time.monotonic()
            for order in first:
                handle.send(order)
            handle.send(protocol.Connect(self.number, at.first, sorted(at.without), at.since_ns, at.done))

    def break_off(self) -> None:
        """End it for all who are in it."""
        for handle in self._pool.handles:
            if handle.state == "running":
                handle.state = "quieting"
                handle.send(protocol.LetGo(LET_GO_S))

    def faulted(self, fault: protocol.Faulted) -> WarpfuseError | None:
        """A stage raised: the epoch is broken off. Returns what the run has to end with instead, if it has to."""
        if fault.epoch != self.number:
            return None
        _LOG.info("stage %s at frame %d:\n%s", fault.stage, fault.seq, fault.trace)
        fatal = fault.kind in ENDS_THE_RUN or (fault.kind == "failed" and fault.seq < 0)
        if fatal or self._streak.ends_the_run(fault.stage, fault.seq, fault.passed):
            _LOG.error("stage %s ended the run:\n%s", fault.stage, fault.trace)
            return error_of(fault.kind, fault.stage, fault.text)
        if fault.kind == "cut":  # what was on its way is sent again, or lost with the epoch
            self._say(f"{fault.text}; it is opened again")
        else:
            self.failed.add(fault.seq)
            self.told.append(f"frame {fault.seq} was dropped: stage {fault.stage}: {fault.text}")
        self.break_off()
        return None
