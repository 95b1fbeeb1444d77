"""Tools for threads and time: the newest value, a wake-up, pauses between tries, a map of clocks, a constant rate.

`Latest` and `Waker` are thread-safe. The others are state machines without a clock: time and randomness are arguments.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")


class Waker:
    """Wakes a thread that polls a file descriptor. Thread-safe. The creator closes it when no thread polls it any more.

    fd        readable from `wake` until `clear`
    write_fd  a byte written to it wakes as well, for `signal.set_wakeup_fd`
    """

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()  # not a pipe, since Windows can poll sockets only
        self._here.setblocking(False)
        self._there.setblocking(False)
        self.fd, self.write_fd = self._here.fileno(), self._there.fileno()

    def wake(self) -> None:
        """Make `fd` readable."""
        with contextlib.suppress(BlockingIOError):  # the buffer is full, so `fd` is readable anyway
            self._there.send(b"!")

    def clear(self) -> None:
        """Undo the calls of `wake` so far. Call it before looking for work, else a wake-up in between is lost."""
        with contextlib.suppress(BlockingIOError):
            while len(self._here.recv(65536)) == 65536:
                pass

    def close(self) -> None:
        """Close both ends."""
        self._here.close()
        self._there.close()

    __del__ = close  # in case it was not closed


class Latest(Generic[T]):
    """A slot for one value between two threads. A new value replaces one that was not taken. Thread-safe.

    waker     for a taker that polls: its `fd` is readable while there is a value, and after `close`
    received  number of values put
    skipped   number of values replaced or discarded before they were taken
    closed    `close` was called
    """

    def __init__(self, waker: Waker | None = None) -> None:
        self.received = self.skipped = 0
        self.closed = False
        self._waker = waker
        self._changed = threading.Condition()
        self._value: T | None = None

    def put(self, value: T) -> T | None:
        """Put a value without waiting. Returns the value it replaced; None if there was none."""
        with self._changed:
            replaced = self._value
            self.skipped += replaced is not None
            self._set(value)
            return replaced

    def put_waiting(self, value: T) -> bool:
        """Wait until the slot is empty, then put a value. So no value is lost. False: it was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is None or self.closed)
            if self.closed:
                return False
            self._set(value)
            return True

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until there is a value, at most `timeout_s` (None: without limit). False without one, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self.closed, timeout_s)
            return self._value is not None

    def take(self, timeout_s: float | None = 0.0) -> T | None:
        """Wait for a value and take it. None after `timeout_s`, and at once when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self.closed, timeout_s)
            return self._taken()

    def discard(self) -> T | None:
        """Take the value and count it as skipped, when it would be too old by the time it can be used."""
        with self._changed:
            value = self._taken()
            self.skipped += value is not None
            return value

    @property
    def over(self) -> bool:
        """It is closed and empty."""
        with self._changed:
            return self.closed and self._value is None

    def close(self) -> None:
        """End every wait. A value in the slot can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            if self._waker is not None:
                self._waker.wake()

    def _taken(self) -> T | None:
        value, self._value = self._value, None
        if value is not None:
            self._changed.notify_all()
            if self._waker is not None and not self.closed:
                self._waker.clear()
        return value

    def _set(self, value: T) -> None:
        self.received += 1
        if self._waker is not None and self._value is None:
            self._waker.wake()
        self._value = value
        self._changed.notify_all()


def doubled_s(failures: int, first_s: float, most_s: float) -> float:
    """Longest pause after this many failures in a row, s: `first_s`, doubled with each further one up to `most_s`."""
    return min(most_s, first_s * 2.0 ** min(failures - 1, 60))


class Backoff:
    """Exponential back-off with jitter: each pause is a random share, at least a tenth, of a bound that doubles.

    The random share (full jitter) spreads the clients of a server that has come back. The minimum of a tenth prevents a
    busy loop.

    chance  draws a random number in [0, 1] for each pause
    """

    def __init__(self, first_s: float, most_s: float, chance: Callable[[], float]) -> None:
        self._first_s, self._most_s, self._chance = first_s, most_s, chance
        self._failures = 0

    def failed(self) -> float:
        """Count a failure. Returns the seconds to wait before the next try."""
        self._failures += 1
        return doubled_s(self._failures, self._first_s, self._most_s) * (0.1 + 0.9 * self._chance())

    def reset(self) -> None:
        """Start again with the shortest bound, after a success."""
        self._failures = 0


class ClockMap:
    """Maps the times of one clock to another by a constant offset. The first time is mapped to the other clock's now.

    When a mapped time differs from now by more than the bounds, the clock has drifted or jumped, or was silent. The
    offset is then set again, so that this time maps to now. So times never come in bursts and never fall behind.

    late_ns   longest time a result may lie before now; None: no bound
    early_ns  longest time a result may lie after now; None: no bound
    moved     number of times the offset was set again because of the bounds
    """

    def __init__(self, late_ns: int | None = None, early_ns: int | None = None) -> None:
        self._late_ns, self._early_ns = late_ns, early_ns
        self._shift_ns: int | None = None
        self.moved = 0

    def __call__(self, time_ns: int, now_ns: int) -> int:
        """Map `time_ns` to the clock that now shows `now_ns`."""
        if self._shift_ns is None:
            self._shift_ns = now_ns - time_ns
        ahead_ns = time_ns + self._shift_ns - now_ns
        late = self._late_ns is not None and -ahead_ns > self._late_ns
        early = self._early_ns is not None and ahead_ns > self._early_ns
        if late or early:
            self._shift_ns = now_ns - time_ns
            self.moved += 1
        return time_ns + self._shift_ns

    def restart(self) -> None:
        """Forget the offset. The next time is of another clock and maps to now."""
        self._shift_ns = None


def tick_ns(k: int, fps: Fraction) -> int:
    """Time of tick k, ns after tick 0."""
    return round(k * 1_000_000_000 / fps)


class Ticker:
    """Deadlines at a constant rate. Tick k is due at `start_ns` + k / `fps`, however late the ticks before it were.

    A tick is skipped when the next one is due already, so that no burst of old ticks follows a pause.

    tick     number of the last tick that `next` gave; -1 before the first
    skipped  number of ticks skipped
    """

    def __init__(self, fps: Fraction, start_ns: int) -> None:
        self._fps = fps
        self._start_ns = start_ns
        self.tick = -1
        self.skipped = 0

    def next(self, now_ns: int) -> int:
        """Time at which the next tick is due; less than a period in the past if the last tick took too long."""
        wanted = self.tick + 1
        latest = (now_ns - self._start_ns) * self._fps // 1_000_000_000
        self.tick = max(wanted, latest)
        self.skipped += self.tick - wanted
        return self._start_ns + tick_ns(self.tick, self._fps)
