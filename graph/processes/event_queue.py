"""What the threads of stages have to say to the supervisor, until the one thread that has the line takes it."""

import contextlib
import os
import queue
from collections.abc import Iterator

from warpfuse.graph.processes import protocol


class Outbox:
    """`put` from any thread, `taken` from one. Whoever made it closes it, when nobody puts any more.

    fd  readable when something has been put since it was taken
    """

    def __init__(self) -> None:
        self._words: queue.SimpleQueue[protocol.Word] = queue.SimpleQueue()
        self.fd, self._bell = os.pipe()
        for end in (self.fd, self._bell):
            os.set_blocking(end, False)

    def put(self, word: protocol.Word) -> None:
        """Leave a word, and wake who waits for one."""
        self._words.put(word)
        with contextlib.suppress(BlockingIOError):  # full of strokes: it is awake
            os.write(self._bell, b"!")

    def taken(self) -> Iterator[protocol.Word]:
        """Every word that is there, in order."""
        with contextlib.suppress(BlockingIOError):  # before the words: a stroke that comes later wakes once more
            os.read(self.fd, 4096)
        while not self._words.empty():
            yield self._words.get()

    def close(self) -> None:
        """Close both ends of the bell."""
        os.close(self.fd)
        os.close(self._bell)
