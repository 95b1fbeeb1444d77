"""A source made of single pictures, each with its time."""

from collections.abc import Callable, Iterator
from fractions import Fraction

from av.video.frame import VideoFrame

from warpfuse.stages.errors import SourceError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sources.container import net
from warpfuse.stages.sources.display import Display, Orientation
from warpfuse.stages.sources.transparency import Rgb
from warpfuse.stages.stage import VideoInfo

Still = tuple[Fraction, VideoFrame, Fraction]
"""(time from the start in s, decoded picture, pixel aspect)."""


class StillsSource:
    """Frames made of single pictures, whose size, format and orientation may change.

    Only one decoded picture is in memory. One thread at a time.
    """

    def __init__(
        self,
        name: str,
        stills: Iterator[Still],
        told: Callable[[], str | None],
        timing: tuple[Fraction, Fraction, int],
        size: tuple[int, int] | None,
        frames: int | None,
    ) -> None:
        """Decode the first picture.

        name    name of the source in errors
        told    gives the source's warning at the end
        timing  rate, time base, number of pictures

        Raises SourceError when there is no picture, or the first cannot be shown at `size`.
        """
        self._name, self._stills, self._told = name, stills, told
        self._limit, self._count = frames, 0
        self._next: Still | None = next(stills, None)
        if self._next is None:
            raise SourceError(f"{name}: not one of its pictures could be decoded. {told() or ''}".rstrip())
        _, first, aspect = self._next
        self._turn = Orientation.of(first)
        self._display = self._shown_at(first, aspect, size)
        fps, time_base, count = timing
        width, height = self._display.natural
        self.info = VideoInfo(width, height, fps, time_base, count if frames is None else min(count, frames))

    def read(self) -> RawFrame | None:
        """The next frame; None at the end. Raises SourceError for a picture that cannot be cropped to the size."""
        if self._count == self._limit:
            return None
        still, self._next = self._next or next(self._stills, None), None
        if still is None:
            return None
        seconds, picture, aspect = still
        with net(self._name):
            if (turn := Orientation.of(picture)) != self._turn:
                before = self._display
                self._turn, self._display = turn, self._shown_at(picture, aspect, before.size)
                self._display.background, self._display.notes = before.background, before.notes
            rgb = self._display(picture)
        stamp = Stamp(self._count, round(seconds * 10**9))
        self._count += 1
        return RawFrame(stamp, rgb)

    def compose_on(self, background: Rgb) -> None:
        """Set the background of transparent parts, from the next frame on."""
        self._display.background = background

    @property
    def warning(self) -> str | None:
        """A line for the user about missing or unreadable pictures, and conversions of pictures; else None."""
        notes = f"{self._name}: {'; '.join(self._display.notes)}." if self._display.notes else None
        return " ".join(filter(None, [self._told(), notes])) or None

    def close(self) -> None:
        """End the source. A second call does nothing."""
        self._next = None
        self._limit = self._count

    def _shown_at(self, picture: VideoFrame, aspect: Fraction, size: tuple[int, int] | None) -> Display:
        try:
            with net(self._name):
                return Display(picture, aspect, size)
        except SourceError as error:
            raise SourceError(f"{self._name}: {error}") from None
