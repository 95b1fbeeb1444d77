"""The states of a live source's connection, as a state machine without I/O. The time is an argument.

             opened                  silence > stall
CONNECTING ---------> LIVE -----------------------> STALLED
    |                  ^  <-------- picture ----------'  |
    | broken           | opened                          | broken (here or while LIVE)
    '--------> RECONNECTING <----------------------------'
                       '---> LOST   too many faults of a class in a row, or too long without a picture
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from warpfuse.stages.sources.faults import TRIES, Broken, Fault
from warpfuse.stages.timing import Backoff

_S = 1_000_000_000
_KEPT = 100  # state changes kept until they are fetched, which bounds the memory


class State(Enum):
    """The state of a connection. The value is shown to users."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits of a connection, s.

    first        longest wait for the first picture, before the run begins
    stall        time without a picture, or three periods if that is longer, after which the source counts as stalled
    silence      time without a picture after which the connection is closed and made again
    least, most  bounds of the pauses between tries, which double and have full jitter
    healthy      length of a connection after which the pauses and the counts of faults start again
    total        time without a picture after which the source is lost for good
    """

    first: float = 8.0
    stall: float = 1.0
    silence: float = 5.0
    least: float = 0.5
    most: float = 30.0
    healthy: float = 10.0
    total: float = 1800.0


class Connection:
    """State, counts and deadlines of one connection. Times are monotonic nanoseconds. One thread at a time.

    changes     the latest state changes, oldest first: (time, state, reason)
    entered     number of times each state was entered
    reconnects  number of connections made after the first
    tries       number of failures since the last picture
    attempt_ns  time of the next try to connect
    stalled_ns  total time without a picture in past stalls
    """

    def __init__(self, now_ns: int, patience: Patience, random: Callable[[], float]) -> None:
        self.state = State.CONNECTING
        self.reason = self.remedy = ""
        self.fault: Fault | None = None
        self.reconnects = 0
        self.stalled_ns = 0
        self.attempt_ns = now_ns
        self.changes: deque[tuple[int, State, str]] = deque(maxlen=_KEPT)
        self.entered: Counter[State] = Counter()
        self.tries = 0
        self._patience = patience
        self._backoff = Backoff(patience.least, patience.most, random)
        self._period_ns = 0
        self._begun_ns = self._seen_ns = self._opened_ns = now_ns
        self._in_a_row: dict[Fault, int] = {}
        self._had_picture = False

    @property
    def ever_live(self) -> bool:
        """A picture has come."""
        return self._had_picture

    def opened(self, now_ns: int, period_ns: int) -> None:
        """A connection was made and gave its first picture. period_ns: expected interval of pictures."""
        self.reconnects += self._had_picture
        self._had_picture = True
        self._period_ns = period_ns
        self._opened_ns = now_ns
        self.picture(now_ns)

    def picture(self, now_ns: int) -> None:
        """A picture has arrived."""
        if self.state is not State.LIVE:
            self.stalled_ns += self._silent_ns(now_ns) if self.state is not State.CONNECTING else 0
            self._go(now_ns, State.LIVE, "")
        self._seen_ns = now_ns
        self.tries = 0
        if now_ns - self._opened_ns >= self._patience.healthy * _S:
            self._backoff.reset()
            self._in_a_row.clear()

    def tick(self, now_ns: int) -> None:
        """Update the state for the present time. A source is lost after at least one try."""
        if self.state is State.LIVE and now_ns >= self.stalls_ns:
            self._go(now_ns, State.STALLED, f"no picture for {(now_ns - self._seen_ns) / _S:.1f} s")
        if self.tries and self.state in (State.CONNECTING, State.RECONNECTING) and now_ns >= self._gives_up_ns:
            self._go(now_ns, State.LOST, self.reason)

    def broken(self, now_ns: int, why: Broken) -> None:
        """A connection failed or broke. `attempt_ns` is then the time of the next try, unless the state is LOST."""
        self.fault, self.reason, self.remedy = why.fault, str(why), why.remedy
        self.tries += 1
        self._in_a_row[why.fault] = count = self._in_a_row.get(why.fault, 0) + 1
        if count >= TRIES.get(why.fault, count + 1):
            self._go(now_ns, State.LOST, self.reason)
            return
        self.attempt_ns = now_ns + round(self._backoff.failed() * _S)
        if self._had_picture and self.state is not State.RECONNECTING:
            self._go(now_ns, State.RECONNECTING, self.reason)
        self.tick(now_ns)

    @property
    def stalls_ns(self) -> int:
        """Time at which the source counts as stalled if no picture comes."""
        return self._seen_ns + max(3 * self._period_ns, round(self._patience.stall * _S))

    @property
    def _gives_up_ns(self) -> int:
        if self._had_picture:
            return self._seen_ns + round(self._patience.total * _S)
        return self._begun_ns + round(self._patience.first * _S)

    def mute(self, now_ns: int) -> bool:
        """No picture has come for so long that the connection has to be made again."""
        return self.state is State.STALLED and self._silent_ns(now_ns) >= self._patience.silence * _S

    def stale_ns(self, now_ns: int) -> int:
        """Total time without a picture in stalls, the present one included."""
        return self.stalled_ns + (self._silent_ns(now_ns) if self._had_picture and self.state is not State.LIVE else 0)

    def _silent_ns(self, now_ns: int) -> int:
        return max(0, now_ns - self._seen_ns)

    def lose(self, now_ns: int, why: Broken) -> None:
        """The connection broke, and another try would not help."""
        self.fault, self.remedy = why.fault, why.remedy
        self._go(now_ns, State.LOST, str(why))

    def _go(self, now_ns: int, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        self.entered[state] += 1
        self.changes.append((now_ns, state, reason))
