"""The source of a run with a page: it can be paused, and what it reads can be looked at."""

import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import Source, VideoInfo

_LOOK_UP_S = 0.1  # how often a paused thread asks whether the run was stopped


class Gate:
    """A source in front of another. `read` and `close` belong to the thread that reads, all else to any.

    saw      called with every frame that is passed on
    dropped  frames of a live source that came during a pause
    """

    def __init__(self, source: Source, stop: threading.Event, saw: Callable[[RawFrame], None]) -> None:
        self.info: VideoInfo = source.info
        self.dropped = 0
        self._source, self._stop, self._saw = source, stop, saw
        self._open = threading.Event()
        self._open.set()
        self._seq = 0

    def read(self) -> RawFrame | None:
        """The next frame; while paused, none. A file waits; a live source is read on, or it would grow old."""
        missed = False
        while True:
            while not self.info.live and not self._open.wait(_LOOK_UP_S):
                if self._stop.is_set():
                    return None
            raw = self._source.read()
            if raw is None or self._stop.is_set():
                return None
            if self._open.is_set() or not self.info.live:
                break
            self.dropped += 1
            missed = True
        stamp = replace(raw.stamp, seq=self._seq, discontinuity=raw.stamp.discontinuity or missed)
        self._seq += 1
        frame = RawFrame(stamp, raw.rgb)
        self._saw(frame)
        return frame

    @property
    def paused(self) -> bool:
        """No frame passes."""
        return not self._open.is_set()

    @property
    def skipped(self) -> int:
        """Pictures of a live source that were over before they were asked for."""
        return int(getattr(self._source, "skipped", 0))

    @property
    def warning(self) -> str | None:
        """The source's."""
        return self._source.warning

    def pause(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def resume(self) -> None:
        """Let frames pass."""
        self._open.set()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
