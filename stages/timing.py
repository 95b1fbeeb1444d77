"""What passes between threads, and when: the newest value, a wake-up, pauses between tries, times of one
clock on another, ticks at a constant rate.

`Latest` and `Waker` are thread-safe. The rest are state machines without a clock: time and chance are arguments.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")


class Waker:
    """Wakes a thread that polls. `wake` and `clear` from any thread; whoever made it closes it when nobody polls.

    fd        readable from `wake` until `clear`
    write_fd  a byte written to it wakes too: `signal.set_wakeup_fd` does so
    """

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()  # no pipe: on Windows only sockets can be polled
        self._here.setblocking(False)
        self._there.setblocking(False)
        self.fd, self.write_fd = self._here.fileno(), self._there.fileno()

    def wake(self) -> None:
        """Make `fd` readable."""
        with contextlib.suppress(BlockingIOError):  # it is full: `fd` is readable
            self._there.send(b"!")

    def clear(self) -> None:
        """Forget the calls of `wake` so far. What was to be taken is looked for after this, or it may lie unseen."""
        with contextlib.suppress(BlockingIOError):
            while len(self._here.recv(65536)) == 65536:
                pass

    def close(self) -> None:
        """Close both ends."""
        self._here.close()
        self._there.close()

    __del__ = close  # of one that is let go unclosed


class Latest(Generic[T]):
    """One place between two threads, in which a new value replaces one that was not taken. Thread-safe.

    waker     is awake while a value lies there and once the place is closed, for a taker that polls
    received  values that were put
    skipped   values that were replaced or discarded before anybody took them
    closed    `close` was called
    """

    def __init__(self, waker: Waker | None = None) -> None:
        self.received = self.skipped = 0
        self.closed = False
        self._waker = waker
        self._changed = threading.Condition()
        self._value: T | None = None

    def put(self, value: T) -> T | None:
        """Put a value without waiting. Returns the one it replaced, if any."""
        with self._changed:
            replaced = self._value
            self.skipped += replaced is not None
            self._set(value)
            return replaced

    def put_waiting(self, value: T) -> bool:
        """Wait until the place is free, for values none of which may be lost. False: it was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is None or self.closed)
            if self.closed:
                return False
            self._set(value)
            return True

    def wait(self, timeout_s: float | None) -> bool:
        """Whether there is a value, which is waited for until the place is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self.closed, timeout_s)
            return self._value is not None

    def take(self, timeout_s: float | None = 0.0) -> T | None:
        """The value, which is waited for; None after `timeout_s`, and at once when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self.closed, timeout_s)
            return self._taken()

    def discard(self) -> T | None:
        """Take the value, and count it as skipped: it would be old by the time it can be used."""
        with self._changed:
            value = self._taken()
            self.skipped += value is not None
            return value

    @property
    def over(self) -> bool:
        """The place is closed and empty."""
        with self._changed:
            return self.closed and self._value is None

    def close(self) -> None:
        """Free whoever waits. A value that lies there can still be taken."""
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
    """The bound of the pause after so many failures in a row: `first_s`, doubled with each more, up to `most_s`."""
    return min(most_s, first_s * 2.0 ** min(failures - 1, 60))


class Backoff:
    """Pauses before the next try: a random share, at least a tenth, of a bound that doubles from failure to failure.

    The random share (full jitter) keeps clients of one server that came back from arriving all at once; the tenth is
    against a busy loop.

    chance  0 to 1, drawn for each pause
    """

    def __init__(self, first_s: float, most_s: float, chance: Callable[[], float]) -> None:
        self._first_s, self._most_s, self._chance = first_s, most_s, chance
        self._failures = 0

    def failed(self) -> float:
        """Count a failure; seconds to wait before the next try."""
        self._failures += 1
        return doubled_s(self._failures, self._first_s, self._most_s) * (0.1 + 0.9 * self._chance())

    def reset(self) -> None:
        """It worked for long enough: the bound starts anew."""
        self._failures = 0


class ClockMap:
    """Lays the times of one clock on another: the first on that clock's now, the others as far apart as they are.

    A time that comes out further from now than the bounds moves the whole mapping, and is laid on now: the clock has
    drifted, leapt, or was silent. So times never burst and never fall behind.

    late_ns   how far before now a time may come out; None: any
    early_ns  how far after now; None: any
    moved     how often the mapping was moved by the bounds
    """

    def __init__(self, late_ns: int | None = None, early_ns: int | None = None) -> None:
        self._late_ns, self._early_ns = late_ns, early_ns
        self._shift_ns: int | None = None
        self.moved = 0

    def __call__(self, time_ns: int, now_ns: int) -> int:
        """`time_ns` on the clock whose time is `now_ns`."""
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
        """The next time is of another clock: it is laid on now."""
        self._shift_ns = None


def tick_ns(k: int, fps: Fraction) -> int:
    """When tick k is, nanoseconds from tick 0."""
    return round(k * 1_000_000_000 / fps)


class Ticker:
    """Deadlines at a constant rate: tick k is due at `start_ns` + k / `fps`, whatever the ticks before it took.

    A tick is left out when its time and that of the next are over: no burst of old ticks follows a pause.

    tick     number of the tick that `next` gave last; -1 before the first
    skipped  ticks left out
    """

    def __init__(self, fps: Fraction, start_ns: int) -> None:
        self._fps = fps
        self._start_ns = start_ns
        self.tick = -1
        self.skipped = 0

    def next(self, now_ns: int) -> int:
        """When the next tick is due: in the past by less than a period if the last one took too long."""
        wanted = self.tick + 1
        latest = (now_ns - self._start_ns) * self._fps // 1_000_000_000
        self.tick = max(wanted, latest)
        self.skipped += self.tick - wanted
        return self._start_ns + tick_ns(self.tick, self._fps)
