"""How often a worker may be started again, and when. Time is an argument."""

from collections import deque
from dataclasses import dataclass, field

from warpfuse.stages.timing import doubled_s

AT_MOST = 5
WITHIN_S = 60.0
FIRST_S = 0.5
LONGEST_S = 8.0


@dataclass(slots=True)
class RestartPolicy:
    """The deaths of one worker. Plain state; seconds of any monotonic clock.

    Not a `Backoff`: it counts the deaths of the last minute, not those in a row.
    """

    total: int = 0
    _deaths: deque[float] = field(default_factory=deque)

    def after(self, now_s: float) -> float | None:
        """A worker died: seconds to wait before it is started again, None when it died too often."""
        while self._deaths and now_s - self._deaths[0] > WITHIN_S:
            self._deaths.popleft()
        if len(self._deaths) >= AT_MOST:
            return None
        self._deaths.append(now_s)
        self.total += 1
        return doubled_s(len(self._deaths), FIRST_S, LONGEST_S)
