"""A file shown live: the graph is slowed to real time by the clock, never by whoever is watching."""

import threading
import time
from collections.abc import Callable

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import VideoInfo
from warpfuse.stages.timing import ClockMap

_SLACK_NS = 500_000_000
_SLACK_FRAMES = 4


class Playback:
    """Says when a frame is due, and waits until then if the source could run ahead of time.

    The first frame is due when it comes, the others as far apart as the source says. One that would be due half a
    second (or four periods) away from when it comes is due then, and those after it follow it.
    """

    def __init__(self, info: VideoInfo, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._waits = not info.live
        slack_ns = max(_SLACK_NS, _SLACK_FRAMES * round(10**9 / info.fps))
        self._due = ClockMap(slack_ns, slack_ns)
        self._last_ns = 0
        self._clock = clock
        self._closed = threading.Event()

    def due(self, frame: RawFrame) -> int:
        """Monotonic time of the frame, later than that of the one before it. Of a file it returns at that time and not
        before."""
        due_ns = self._last_ns = max(self._due(frame.stamp.pts_ns, self._clock()), self._last_ns + 1)
        while self._waits and (left := due_ns - self._clock()) > 0 and not self._closed.wait(left / 1e9):
            pass
        return due_ns

    def close(self) -> None:
        """Wait no more."""
        self._closed.set()
