"""Hand the newest of many values from a thread that cannot wait to one that can."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """One place: a value that is put over another replaces it, and the other counts as skipped. Thread-safe.

    skipped  values that were replaced before anybody took them
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._changed = threading.Condition()
        self._value: T | None = None
        self._closed = False

    def put(self, value: T) -> None:
        """Never waits."""
        with self._changed:
            self.skipped += self._value is not None
            self._value = value
            self._changed.notify_all()

    def put_waiting(self, value: T) -> bool:
        """Wait until the place is free, for values none of which may be lost. False: closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is None or self._closed)
            if self._closed:
                return False
            self._value = value
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float | None) -> T | None:
        """The newest value nobody took yet, waited for; None after `timeout_s` and when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self._closed, timeout_s)
            value, self._value = self._value, None
            self._changed.notify_all()
            return value

    @property
    def over(self) -> bool:
        """Closed, and nothing lies there any more."""
        with self._changed:
            return self._closed and self._value is None

    def close(self) -> None:
        """What waits returns; a value that lies there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
