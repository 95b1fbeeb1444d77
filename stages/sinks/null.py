"""A sink that keeps nothing but the count: for measuring all the rest."""

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("null",)


def check(url: str, source: str | None = None) -> None:
    """Nothing can be wrong with it."""


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "NullSink":
    """Open it."""
    return NullSink()


class NullSink:
    """Counts frames in `frames`."""

    def __init__(self) -> None:
        self.frames = 0
        self.notes: list[str] = []

    def write(self, frame: RawFrame) -> None:
        """Count it."""
        self.frames += 1

    def close(self, complete: bool) -> None:
        """Nothing to finish."""
