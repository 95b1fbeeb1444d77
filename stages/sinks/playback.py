"""Showing a file live: the clock slows the graph down to real time."""

import threading
import time
from collections.abc import Callable

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import VideoInfo
from warpfuse.stages.timing import ClockMap

_SLACK_NS = 500_000_000
_SLACK_FRAMES = 4


class Playback:
    """Computes when a frame is due, and waits until then if the source is not live.

    The first frame is due when it comes, the others at the source's intervals after it. A frame that would be due more
    than half a second (or four periods) before or after it comes is due at once, and later frames follow it.
    """

    def __init__(self, info: VideoInfo, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._waits = not info.live
        slack_ns = max(_SLACK_NS, _SLACK_FRAMES * round(10**9 / info.fps))
        self._due = ClockMap(slack_ns, slack_ns)
        self._last_ns = 0
        self._clock = clock
        self._closed = threading.Event()

    def due(self, frame: RawFrame) -> int:
        """Monotonic time at which the frame is due, after that of the last frame. For a file it waits until then."""
        due_ns = self._last_ns = max(self._due(frame.stamp.pts_ns, self._clock()), self._last_ns + 1)
        while self._waits and (left := due_ns - self._clock()) > 0 and not self._closed.wait(left / 1e9):
            pass
        return due_ns

    def close(self) -> None:
        """End every wait."""
        self._closed.set()
