"""A sink that only counts frames, for measuring everything else."""

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("null",)


def check(url: str, source: str | None = None) -> None:
    """Always passes."""


def carries_alpha(url: str) -> bool:
    """True: what is not written loses nothing."""
    return True


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "NullSink":
    """Open the sink."""
    return NullSink()


class NullSink:
    """Counts frames in `frames`."""

    def __init__(self) -> None:
        self.frames = 0
        self.notes: list[str] = []

    def write(self, frame: RawFrame) -> None:
        """Count the frame."""
        self.frames += 1

    def close(self, complete: bool) -> None:
        """Does nothing."""
