"""One stream of pictures for any number of viewers: each gets the newest when it asks, encoded once for all."""

import threading
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from warpfuse.stages.sinks.latest_picture import LatestPicture

_QUALITY = 85


def jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    """A picture, uint8 [h, w, 3], as a browser shows it: JPEG is full-range BT.601, which OpenCV does, from BGR."""
    _, data = cv2.imencode(".jpg", rgb[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    return data.tobytes()


@dataclass(frozen=True, slots=True)
class Jpeg:
    """An encoded picture and its number: 1 for the first."""

    number: int
    data: bytes


class Fanout:
    """Newest only: a slow viewer skips pictures, it neither delays nor queues any. Thread-safe.

    Nothing is encoded while nobody asks, and a picture is encoded once: by the first who asks for it, in that thread.
    So the graph, which calls `put`, pays for one copy whatever the number of viewers.

    encoded  pictures encoded
    viewers  how many `viewing` now
    """

    def __init__(self, size: tuple[int, int], most_viewers: int = 16) -> None:
        self._pictures = LatestPicture(size)
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._newest: Jpeg | None = None
        self._most_viewers = most_viewers
        self._number = 0
        self.closed = False
        self.encoded = self.viewers = 0

    def put(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Make this the newest picture, uint8 [h, w, 3]. It is copied. One thread puts."""
        self._pictures.put(rgb, 0)
        with self._changed:
            self._number = self._pictures.received
            self._changed.notify_all()

    def newer_than(self, number: int, timeout: float) -> Jpeg | None:
        """The newest picture if its number is above `number`, waited for at most `timeout` seconds; else None."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self.closed, timeout)
            if self._number <= number or self.closed:
                return None
        with self._encoding:
            picture = self._pictures.take()
            if picture is not None:
                self._newest = Jpeg(picture.number, jpeg(picture.rgb))
                self.encoded += 1
            return self._newest

    def enter(self) -> bool:
        """Count a viewer in; False when there are too many."""
        with self._changed:
            if self.closed or self.viewers >= self._most_viewers:
                return False
            self.viewers += 1
            return True

    def leave(self) -> None:
        """Count a viewer out."""
        with self._changed:
            self.viewers -= 1

    def close(self) -> None:
        """Send every viewer away."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
