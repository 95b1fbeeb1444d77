"""What went wrong while a graph ran, and whether the run goes on without the frame it happened to."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import LinkCut

IN_A_ROW = 5
"""Failures of one stage, with no frame got through it in between, that end a run."""


@dataclass(frozen=True, slots=True)
class StageFault:
    """A stage raised. seq: the frame it was given, -1: none; passed: the newest frame it had done before, -1: none."""

    stage: str
    error: BaseException
    seq: int = -1
    passed: int = -1


@dataclass(slots=True)
class Streak:
    """Failures in a row of each stage. Plain state.

    A stage that got a frame through which is newer than the one it failed at begins anew: those before it, which a file
    source reads again, prove nothing.
    """

    allowed: int = IN_A_ROW
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def ends_the_run(self, stage: str, seq: int, passed: int) -> bool:
        """Count a failure. True: it was one too many."""
        count, at = self._seen.get(stage, (0, -1))
        count = 1 if passed > at else count + 1
        self._seen[stage] = count, max(seq, at)
        return count >= self.allowed


class Faults:
    """Where runners report that their stage raised. Thread-safe.

    A loss or bad input (WarpfuseError) ends the run, and so does an error at no frame; any other costs one frame and a
    new epoch, until a stage has failed `allowed` times in a row: 1 ends the run at the first.
    The first error that ends the run wins; those it caused are not kept.

    changed  called when there is something new to see, from the thread that reports
    """

    def __init__(self, allowed: int = 1, changed: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._streak = Streak(allowed)
        self._changed = changed
        self._spared: list[StageFault] = []
        self.stage: str | None = None
        self.error: BaseException | None = None

    def spared(self, fault: StageFault) -> bool:
        """Report a failure. True: the run goes on, the thread leaves its links as they are and ends."""
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
        """The failures that were spared and not taken before."""
        with self._lock:
            taken, self._spared = self._spared, []
        return taken


class Forwarded(Faults):
    """Faults of a worker whose supervisor decides: every thread leaves its links as they are."""

    def __init__(self, tell: Callable[[StageFault], None]) -> None:
        super().__init__()
        self._tell = tell

    def spared(self, fault: StageFault) -> bool:
        """Tell the supervisor."""
        self._tell(fault)
        return True
