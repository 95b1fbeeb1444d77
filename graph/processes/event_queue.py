"""From many threads to the one that polls: what they have to say or to ask, in order."""

import queue
from collections.abc import Iterator
from typing import Generic, TypeVar

from warpfuse.stages.timing import Waker

T = TypeVar("T")


class EventQueue(Generic[T]):
    """`put` from any thread, `taken` from one. Whoever made it closes it, when nobody puts any more.

    fd  readable when something has been put since it was taken
    """

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waker = Waker()
        self.fd = self._waker.fd

    def put(self, event: T) -> None:
        """Leave an event, and wake who waits for one."""
        self._events.put(event)
        self._waker.wake()

    def taken(self) -> Iterator[T]:
        """Every event that is there, in order."""
        self._waker.clear()  # before the events: one that comes later wakes once more
        while not self._events.empty():
            yield self._events.get()

    def close(self) -> None:
        """Let the waker go."""
        self._waker.close()
