"""Playing a recording in real time, as if it came from a camera."""

import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import Source, VideoInfo
from warpfuse.stages.timing import ClockMap


class Looped:
    """A source that begins again when it ends. Numbers and times go on; the first frame of a lap is a discontinuity.

    once  opens the recording
    """

    def __init__(self, once: Callable[[], Source]) -> None:
        self._once = once
        self._source = once()
        self._closed = False
        self.info: VideoInfo = replace(self._source.info, frames=None)
        self._count = self._shift_ns = self._next_ns = 0
        self._fresh = False  # nothing of this lap was read yet

    def read(self) -> RawFrame | None:
        """The next frame; None when closed, and of a recording without frames."""
        raw = self._source.read()
        if raw is None and not self._fresh and self._count:
            self._source.close()
            self._source, self._shift_ns, self._fresh = self._once(), self._next_ns, True
            raw = self._source.read()
        if raw is None or self._closed:
            return None
        stamp = raw.stamp
        pts_ns = stamp.pts_ns + self._shift_ns
        cut = stamp.discontinuity or self._fresh
        self._next_ns, self._fresh = pts_ns + round(10**9 / self.info.fps), False
        stamp = replace(stamp, seq=self._count, pts_ns=pts_ns, discontinuity=cut)
        self._count += 1
        return raw.stamped(stamp)

    @property
    def warning(self) -> str | None:
        """What the recording has to tell."""
        return self._source.warning

    def close(self) -> None:
        """Close the recording."""
        self._closed = True
        self._source.close()


class RealTime:
    """A live source made of a recording: `read` waits for each frame's presentation time.

    clock  monotonic nanoseconds
    wait   sleeps for this many seconds
    """

    def __init__(self, source: Source, clock: Callable[[], int], wait: Callable[[float], object] | None = None) -> None:
        self.info: VideoInfo = replace(source.info, live=True)
        self._source = source
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._due = ClockMap()

    def read(self) -> RawFrame | None:
        """The next frame, at its time; None at the end."""
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
        """The source's warning."""
        return self._source.warning

    def close(self) -> None:
        """Close the source."""
        self._closed.set()
        self._source.close()
