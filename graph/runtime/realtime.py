"""A recording as if it came from a camera: each frame when its time has come, to the clock."""

import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import Source, VideoInfo
from warpfuse.stages.timing import ClockMap


class RealTime:
    """A source that waits for each frame's presentation time.

    clock  monotonic nanoseconds
    wait   sleeps for seconds
    """

    def __init__(self, source: Source, clock: Callable[[], int], wait: Callable[[float], object] | None = None) -> None:
        self.info: VideoInfo = replace(source.info, live=True)
        self._source = source
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._due = ClockMap()

    def read(self) -> RawFrame | None:
        """The next frame, not before its time."""
        raw = self._source.read()
        if raw is None:
            return None
        now = self._clock()
        ahead = self._due(raw.stamp.pts_ns, now) - now
        if ahead > 0:
            self._wait(ahead / 1e9)
        return raw

    @property
    def warning(self) -> str | None:
        """What the source has to tell."""
        return self._source.warning

    def close(self) -> None:
        """Close the source."""
        self._closed.set()
        self._source.close()
