"""The place between a graph that must not wait and an output that may: it holds the newest picture and no other."""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warpfuse.stages.timing import Latest


@dataclass(frozen=True, slots=True)
class TakenPicture:
    """A picture that was taken.

    number  1 for the first one ever put in
    due_ns  monotonic time at which it belongs on the screen
    rgb     uint8 [h, w, 3]; memory of the `LatestPicture`, the taker's until it takes another
    """

    number: int
    due_ns: int
    rgb: npt.NDArray[np.uint8]


class LatestPicture:
    """A `Latest` that copies, for one thread that puts and one that takes.

    Note: three buffers. One is being filled, one waits, one is with the taker; a picture is copied in, for the graph
    uses its memory again as soon as `put` returns.

    size  (width, height) of the pictures
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        width, height = size
        self._latest: Latest[TakenPicture] = Latest()
        self._filling, self._taken, *self._free = (np.zeros((height, width, 3), np.uint8) for _ in range(3))
        self._passing = threading.Lock()  # held while a buffer passes from one to the other

    @property
    def received(self) -> int:
        """Pictures that were put."""
        return self._latest.received

    @property
    def dropped(self) -> int:
        """Pictures that were replaced or discarded before they were taken."""
        return self._latest.skipped

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._latest.closed

    def put(self, rgb: npt.NDArray[np.uint8], due_ns: int) -> None:
        """Copy a picture in, without waiting for the taker."""
        buffer = self._filling
        if rgb.shape != buffer.shape:
            raise ValueError(f"pictures of {buffer.shape} were agreed on, got {rgb.shape}")
        np.copyto(buffer, rgb)
        with self._passing:
            replaced = self._latest.put(TakenPicture(self._latest.received + 1, due_ns, buffer))
            self._filling = self._free.pop() if replaced is None else replaced.rgb

    def take(self, timeout_s: float = 0.0) -> TakenPicture | None:
        """The newest picture not yet taken; None when there is none within `timeout_s`, or after `close`."""
        self._latest.wait(timeout_s)
        with self._passing:
            picture = self._latest.take()
            if picture is not None:
                self._free.append(self._taken)
                self._taken = picture.rgb
            return picture

    def discard(self) -> None:
        """Drop and count what waits: it would be old by the time it can be used."""
        with self._passing:
            picture = self._latest.discard()
            if picture is not None:
                self._free.append(picture.rgb)

    def close(self) -> None:
        """Wake the taker for good. What waits can still be taken."""
        self._latest.close()
