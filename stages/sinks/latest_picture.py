"""A slot for the newest picture, between a graph that must not wait and an output that may block."""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warpfuse.stages.timing import Latest


@dataclass(frozen=True, slots=True)
class TakenPicture:
    """A picture that was taken.

    number  its number among all pictures put, 1 for the first
    due_ns  monotonic time at which it is to be shown
    pts_ns  its presentation time, by which sound is placed; 0: it was put without
    rgb     uint8 [h, w, 3]; memory of the `LatestPicture`, valid until the next `take`
    """

    number: int
    due_ns: int
    pts_ns: int
    rgb: npt.NDArray[np.uint8]


class LatestPicture:
    """A `Latest` that copies pictures. One thread puts, one takes.

    Note: three buffers. One is being filled, one waits and one is used by the taker. Pictures are copied because the
    graph reuses their memory as soon as `put` returns.

    size  (width, height) of the pictures
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        width, height = size
        self._latest: Latest[TakenPicture] = Latest()
        self._filling, self._taken, *self._free = (np.zeros((height, width, 3), np.uint8) for _ in range(3))
        self._passing = threading.Lock()  # held while buffers change roles

    @property
    def received(self) -> int:
        """Number of pictures put."""
        return self._latest.received

    @property
    def dropped(self) -> int:
        """Number of pictures replaced or discarded before they were taken."""
        return self._latest.skipped

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._latest.closed

    def put(self, rgb: npt.NDArray[np.uint8], due_ns: int, pts_ns: int = 0) -> None:
        """Copy a picture into the slot, without waiting. Raises ValueError for another size."""
        buffer = self._filling
        if rgb.shape != buffer.shape:
            raise ValueError(f"pictures of {buffer.shape} were agreed on, got {rgb.shape}")
        np.copyto(buffer, rgb)
        with self._passing:
            replaced = self._latest.put(TakenPicture(self._latest.received + 1, due_ns, pts_ns, buffer))
            self._filling = self._free.pop() if replaced is None else replaced.rgb

    def take(self, timeout_s: float = 0.0) -> TakenPicture | None:
        """Wait for a picture that was not taken yet. None without one in `timeout_s`, or after `close`."""
        self._latest.wait(timeout_s)
        with self._passing:
            picture = self._latest.take()
            if picture is not None:
                self._free.append(self._taken)
                self._taken = picture.rgb
            return picture

    def discard(self) -> None:
        """Drop the waiting picture and count it as dropped, when it would be too old by the time it can be used."""
        with self._passing:
            picture = self._latest.discard()
            if picture is not None:
                self._free.append(picture.rgb)

    def close(self) -> None:
        """End every wait. A waiting picture can still be taken."""
        self._latest.close()
