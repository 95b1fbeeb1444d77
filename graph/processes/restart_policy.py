"""When a dead worker is started again, and how often. The time is an argument."""

from collections import deque
from dataclasses import dataclass, field

from warpfuse.stages.timing import doubled_s

AT_MOST = 5
WITHIN_S = 60.0
FIRST_S = 0.5
LONGEST_S = 8.0


@dataclass(slots=True)
class RestartPolicy:
    """Limits the restarts of one worker. Plain state; times are seconds of any monotonic clock.

    It differs from a `Backoff` in counting the deaths of the last minute instead of those in a row.

    total  number of deaths so far
    """

    total: int = 0
    _deaths: deque[float] = field(default_factory=deque)

    def after(self, now_s: float) -> float | None:
        """Count a death. Returns the seconds until the next start; None when the worker died too often."""
        while self._deaths and now_s - self._deaths[0] > WITHIN_S:
            self._deaths.popleft()
        if len(self._deaths) >= AT_MOST:
            return None
        self._deaths.append(now_s)
        self.total += 1
        return doubled_s(len(self._deaths), FIRST_S, LONGEST_S)
