"""Distributing pictures to any number of viewers. Each gets the newest one, which is encoded once for all."""

import threading
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from warpfuse.stages.sinks.latest_picture import LatestPicture

_QUALITY = 85


def jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture, uint8 RGB [h, w, 3]. OpenCV takes BGR and writes full-range BT.601, as JPEG requires."""
    _, data = cv2.imencode(".jpg", rgb[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    return data.tobytes()


@dataclass(frozen=True, slots=True)
class Jpeg:
    """An encoded picture. number: 1 for the first."""

    number: int
    data: bytes


class Fanout:
    """Keeps the newest picture for viewers. A slow viewer skips pictures and does not delay others. Thread-safe.

    A picture is encoded once, in the thread of the viewer that asks for it first, and not at all if no viewer does. So
    `put`, which the graph calls, costs one copy for any number of viewers.

    encoded  number of pictures encoded
    viewers  number of viewers between `enter` and `leave`
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
        """Copy a picture, uint8 [h, w, 3], and make it the newest. Called by one thread."""
        self._pictures.put(rgb, 0)
        with self._changed:
            self._number = self._pictures.received
            self._changed.notify_all()

    def newer_than(self, number: int, timeout: float) -> Jpeg | None:
        """Wait at most `timeout` seconds for a picture with a number above `number`. None without one."""
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
        """Count a new viewer. False when there are too many, or after `close`."""
        with self._changed:
            if self.closed or self.viewers >= self._most_viewers:
                return False
            self.viewers += 1
            return True

    def leave(self) -> None:
        """Count a viewer that leaves."""
        with self._changed:
            self.viewers -= 1

    def close(self) -> None:
        """End every wait. Viewers get no more pictures."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
