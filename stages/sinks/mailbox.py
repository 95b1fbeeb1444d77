"""The place between a graph that must not wait and an output that may: it holds the newest picture and no other."""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture taken out of a mailbox.

    number  1 for the first one ever put in
    due_ns  monotonic time at which it belongs on the screen
    rgb     uint8 [h, w, 3]; the mailbox's memory, the taker's until it takes again
    """

    number: int
    due_ns: int
    rgb: npt.NDArray[np.uint8]


class Mailbox:
    """Newest first, one place, one taker. `put` never waits for the taker; what it replaces is counted.

    Note: three buffers. One is being filled, one waits, one is with the taker; a picture is copied in, for the graph
    uses its memory again as soon as `put` returns. Thread-safe.

    size  (width, height) of the pictures
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        width, height = size
        self._buffers = [np.zeros((height, width, 3), np.uint8) for _ in range(3)]
        self._filling, self._waiting, self._taken = 0, 1, 2
        self._fresh: Picture | None = None
        self._changed = threading.Condition()
        self.closed = False
        self.received = self.dropped = 0

    def put(self, rgb: npt.NDArray[np.uint8], due_ns: int) -> None:
        """Copy a picture in. One thread puts."""
        buffer = self._buffers[self._filling]
        if rgb.shape != buffer.shape:
            raise ValueError(f"pictures of {buffer.shape} were agreed on, got {rgb.shape}")
        np.copyto(buffer, rgb)
        with self._changed:
            self.received += 1
            self.dropped += self._fresh is not None
            self._fresh = Picture(self.received, due_ns, buffer)
            self._filling, self._waiting = self._waiting, self._filling
            self._changed.notify_all()

    def take(self, timeout: float = 0.0) -> Picture | None:
        """The newest picture not yet taken; None when there is none within `timeout` seconds, or after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._fresh is not None or self.closed, timeout)
            picture, self._fresh = self._fresh, None
            if picture is not None:
                self._waiting, self._taken = self._taken, self._waiting
            return picture

    def discard(self) -> None:
        """Drop and count what waits: it would be old by the time it can be used."""
        with self._changed:
            self.dropped += self._fresh is not None
            self._fresh = None

    def close(self) -> None:
        """Wake the taker for good. What waits can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
