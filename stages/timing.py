"""What passes between threads, and when: the newest value, a wake-up, pauses between tries.

`Latest` and `Waker` are thread-safe. The rest are state machines without a clock: time and chance are arguments.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Waker:
    """Wakes a thread that polls. `wake` and `clear` from any thread; whoever made it closes it when nobody polls.

    fd        readable from `wake` until `clear`
    write_fd  a byte written to it wakes too: `signal.set_wakeup_fd` does so
    """

    def __init__(self) -> None:
        self.fd, self.write_fd = os.pipe()
        for end in (self.fd, self.write_fd):
            os.set_blocking(end, False)

    def wake(self) -> None:
        """Make `fd` readable."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full: `fd` is readable
            os.write(self.write_fd, b"!")

    def clear(self) -> None:
        """Forget the calls of `wake` so far. What was to be taken is looked for after this, or it may lie unseen."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.fd, 65536)) == 65536:
                pass

    def close(self) -> None:
        """Close both ends of the pipe."""
        os.close(self.fd)
        os.close(self.write_fd)


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
