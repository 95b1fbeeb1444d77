"""A file shown live: the graph is slowed to real time by the clock, never by whoever is watching."""

import threading
import time
from collections.abc import Callable

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.timeline import Timeline
from warpfuse.stages.stage import VideoInfo


class Playback:
    """Says when a frame is due, and waits until then if the source could run ahead of time."""

    def __init__(self, info: VideoInfo, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._waits = not info.live
        self._timeline = Timeline(round(10**9 / info.fps))
        self._clock = clock
        self._closed = threading.Event()

    def due(self, frame: RawFrame) -> int:
        """Monotonic time of the frame. Of a file it returns at that time and not before."""
        due_ns = self._timeline.due(frame.stamp.pts_ns, self._clock())
        while self._waits and (left := due_ns - self._clock()) > 0 and not self._closed.wait(left / 1e9):
            pass
        return due_ns

    def close(self) -> None:
        """Wait no more."""
        self._closed.set()
