"""Failures of stages, and whether a failure ends the run or costs only its frame."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import LinkCut

IN_A_ROW = 5
"""Number of failures of one stage in a row, without a frame that succeeds in between, that ends a run."""


@dataclass(frozen=True, slots=True)
class StageFault:
    """A stage raised. seq: the frame it failed on, -1: none; passed: the newest frame it had finished, -1: none."""

    stage: str
    error: BaseException
    seq: int = -1
    passed: int = -1


@dataclass(slots=True)
class Streak:
    """Counts the failures in a row of each stage. Plain state.

    The count starts again when the stage has finished a frame newer than the one it failed on. Older frames do not
    count as a success: after a failure, a file source reads them again.
    """

    allowed: int = IN_A_ROW
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def ends_the_run(self, stage: str, seq: int, passed: int) -> bool:
        """Count a failure of a stage. True: there were too many in a row."""
        count, at = self._seen.get(stage, (0, -1))
        count = 1 if passed > at else count + 1
        self._seen[stage] = count, max(seq, at)
        return count >= self.allowed


class Faults:
    """Collects the failures of stages. Thread-safe.

    A WarpfuseError (a lost stream, bad input) ends the run, except for LinkCut. So does an error without a frame. Any
    other error costs its frame and a new epoch, until a stage has failed `allowed` times in a row.

    allowed  failures in a row that end the run; 1: the first one does
    changed  called after every report, in the reporting thread
    stage, error  the first failure that ended the run. Later ones are not kept, since it may have caused them
    """

    def __init__(self, allowed: int = 1, changed: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._streak = Streak(allowed)
        self._changed = changed
        self._spared: list[StageFault] = []
        self.stage: str | None = None
        self.error: BaseException | None = None

    def spared(self, fault: StageFault) -> bool:
        """Report a failure. True: the run goes on; the calling thread ends and leaves its links open."""
        with self._lock:
            lost = isinstance(fault.error, WarpfuseError) and not isinstance(fault.error, LinkCut)
            fatal = lost or not isinstance(fault.error, Exception) or fault.seq < 0
            fatal = fatal or self._streak.ends_the_run(fault.stage, fault.seq, fault.passed)
            if fatal and self.error is None:
                self.stage, self.error = fault.stage, fault.error
            if not fatal:
                self._spared.append(fault)
        self._changed()
        return not fatal

    def take(self) -> list[StageFault]:
        """The failures since the last call that did not end the run."""
        with self._lock:
            taken, self._spared = self._spared, []
        return taken


class Forwarded(Faults):
    """Forwards the failures of a worker to its supervisor, which decides. Every thread leaves its links open."""

    def __init__(self, tell: Callable[[StageFault], None]) -> None:
        super().__init__()
        self._tell = tell

    def spared(self, fault: StageFault) -> bool:
        """Forward a failure. Always True."""
        self._tell(fault)
        return True
