"""Animated WebP as a source, read by Pillow. FFmpeg reads still WebP only."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.schemes import path_of
from warpfuse.stages.sources.stills import Still, StillsSource
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("file",)

_ANIMATED = 0x02  # flag in a VP8X chunk
_SHORTEST_MS = 10  # pictures of this duration or less are shown for 100 ms, as browsers do
_MS = Fraction(1, 1000)


def serves(url: str) -> bool:
    """The file is a WebP with the flag for animation."""
    path = path_of(url)
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return len(head) == 21 and head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & _ANIMATED)


def probe(url: str) -> VideoInfo:
    """Information on the animation. Raises SourceError."""
    source = open(url, None, None)
    source.close()
    return source.info


def open(url: str, size: tuple[int, int] | None, frames: int | None) -> StillsSource:
    """Open the animation. It is played once, whatever its loop count. Raises SourceError."""
    animation = Animation(path_of(url))
    count, lasts_ms = len(animation.shown_ms), sum(animation.shown_ms)
    timing = Fraction(count * 1000, lasts_ms), _MS, count
    return StillsSource(str(animation.path), animation.stills(), animation.losses, timing, size, frames)


class Animation:
    """The complete pictures of one file, with alpha.

    shown_ms  duration of each picture
    """

    def __init__(self, path: Path) -> None:
        """Read the durations of the pictures. Raises SourceError when there are none."""
        self.path = path
        self.shown_ms = [ms if ms > _SHORTEST_MS else 100 for ms in _durations(path.read_bytes())]
        self._decoded = 0
        self._ended = False
        if not self.shown_ms:
            raise SourceError(f"{path}: a WebP animation without a picture. The file was cut short.")

    def stills(self) -> Iterator[Still]:
        """Yield the pictures, up to the first damage."""
        from PIL import Image  # imported here, since no other source needs it

        at_ms = 0
        try:
            with Image.open(self.path) as image:
                for index, ms in enumerate(self.shown_ms):
                    image.seek(index)
                    rgba = np.asarray(image.convert("RGBA"), np.uint8)
                    yield at_ms * _MS, VideoFrame.from_ndarray(rgba, format="rgba"), Fraction(1)
                    self._decoded += 1
                    at_ms += ms
        except Exception:  # noqa: BLE001  (a damaged file makes Pillow raise nearly anything)
            self._ended = True

    def losses(self) -> str | None:
        """A line for the user if the file is damaged; else None."""
        if not self._ended:
            return None
        return (
            f"{self.path}: {self._decoded} of {len(self.shown_ms)} pictures decoded: the file is damaged or cut short."
        )


def _durations(data: bytes) -> list[int]:
    """Duration of each ANMF chunk, ms, a truncated last one included."""
    found, at = [], 12
    while at + 8 <= len(data):
        if data[at : at + 4] == b"ANMF" and at + 24 <= len(data):
            found.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return found
