"""What the threads of stages have to say to the supervisor, until the one thread that has the line takes it."""

import queue
from collections.abc import Iterator

from warpfuse.graph.processes import protocol
from warpfuse.stages.timing import Waker


class Outbox:
    """`put` from any thread, `taken` from one. Whoever made it closes it, when nobody puts any more.

    fd  readable when something has been put since it was taken
    """

    def __init__(self) -> None:
        self._words: queue.SimpleQueue[protocol.Word] = queue.SimpleQueue()
        self._waker = Waker()
        self.fd = self._waker.fd

    def put(self, word: protocol.Word) -> None:
        """Leave a word, and wake who waits for one."""
        self._words.put(word)
        self._waker.wake()

    def taken(self) -> Iterator[protocol.Word]:
        """Every word that is there, in order."""
        self._waker.clear()  # before the words: one that comes later wakes once more
        while not self._words.empty():
            yield self._words.get()

    def close(self) -> None:
        """Let the waker go."""
        self._waker.close()
