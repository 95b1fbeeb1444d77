"""A queue from many threads to one that polls a file descriptor."""

import queue
from collections.abc import Iterator
from typing import Generic, TypeVar

from warpfuse.stages.timing import Waker

T = TypeVar("T")


class EventQueue(Generic[T]):
    """A FIFO queue. Any thread may `put`; one thread calls `taken`. The creator closes it after the last `put`.

    fd  file descriptor, readable when an event was put since the last `taken`
    """

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waker = Waker()
        self.fd = self._waker.fd

    def put(self, event: T) -> None:
        """Append an event and wake the polling thread."""
        self._events.put(event)
        self._waker.wake()

    def taken(self) -> Iterator[T]:
        """Yield every event in the queue, in order."""
        self._waker.clear()  # before reading: an event put from now on makes `fd` readable again
        while not self._events.empty():
            yield self._events.get()

    def close(self) -> None:
        """Close `fd`."""
        self._waker.close()
