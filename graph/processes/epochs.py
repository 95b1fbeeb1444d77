"""The epochs of a run over several workers.

All links of a run are in the same epoch. A failure ends the epoch for every worker. The next epoch resumes where it
broke off.
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
"""Time that a worker has to close its links, s."""


class Epochs:
    """Begins epochs and breaks them off. One thread uses it.

    sinks   names of all sinks
    rewind  the source is a file, and resumes at the first frame that some sink lacks; else with its next frame
    number  number of the last epoch begun, 0 before the first
    failed  frames that a stage failed on; the run leaves them out
    told    a message for the user about each of them
    """

    def __init__(self, pool: WorkerPool, sinks: Sequence[str], *, rewind: bool, say: Callable[[str], None]) -> None:
        self._pool, self._sinks, self._rewind, self._say = pool, sinks, rewind, say
        self._streak = Streak()
        self.number = 0
        self.failed: set[int] = set()
        self.told: list[str] = []

    def begin(self, first: Sequence[protocol.Command] = ()) -> None:
        """Begin the next epoch in every worker. first: commands sent before it begins."""
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
            for command in first:
                handle.send(command)
            handle.send(protocol.Connect(self.number, at.first, sorted(at.without), at.since_ns, at.done))

    def break_off(self) -> None:
        """End the epoch in every worker that is in it."""
        for handle in self._pool.handles:
            if handle.state == "running":
                handle.state = "quieting"
                handle.send(protocol.LetGo(LET_GO_S))

    def faulted(self, fault: protocol.Faulted) -> WarpfuseError | None:
        """Handle the failure of a stage: break the epoch off. Returns an error instead if the failure ends the run."""
        if fault.epoch != self.number:
            return None
        _LOG.info("stage %s at frame %d:\n%s", fault.stage, fault.seq, fault.trace)
        fatal = fault.kind in ENDS_THE_RUN or (fault.kind == "failed" and fault.seq < 0)
        if fatal or self._streak.ends_the_run(fault.stage, fault.seq, fault.passed):
            _LOG.error("stage %s ended the run:\n%s", fault.stage, fault.trace)
            return error_of(fault.kind, fault.stage, fault.text)
        if fault.kind == "cut":  # the frame itself is not at fault: a file sends it again in the next epoch
            self._say(f"{fault.text}; it is opened again")
        else:
            self.failed.add(fault.seq)
            self.told.append(f"frame {fault.seq} was dropped: stage {fault.stage}: {fault.text}")
        self.break_off()
        return None
