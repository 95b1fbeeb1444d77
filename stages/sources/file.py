"""A video file as a source, of any kind that FFmpeg reads."""

from collections.abc import Callable, Generator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from warpfuse.stages.errors import SourceError
from warpfuse.stages.frame import CardFrame, RawFrame, Stamp
from warpfuse.stages.sources.container import (
    Decoder,
    Demuxer,
    exact,
    met,
    net,
    open_clip,
    require_picture,
    which_picture,
)
from warpfuse.stages.sources.display import Display
from warpfuse.stages.sources.fields import Deinterlacer
from warpfuse.stages.sources.schemes import path_of
from warpfuse.stages.sources.session import plausible_rate
from warpfuse.stages.sources.times import Times
from warpfuse.stages.sources.transparency import Rgb
from warpfuse.stages.stage import VideoInfo

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

Rgb8 = npt.NDArray[np.uint8]

SCHEMES: tuple[str, ...] = ("file",)
_LONGEST = 3600  # s, of a tick; a longer one means damage
_FASTEST = 1000  # frames a second; formats that have their clock's rate instead (DV) claim more


class PictureDecoder(Protocol):
    """Decodes files on a card, where the pictures stay (`stages/card_decoder.py`). It loads torch, a file does not.

    surfaces  options of the stream's decoder
    """

    @property
    def surfaces(self) -> Mapping[str, str]: ...  # noqa: D102

    def settings(self) -> "HWAccel | None":
        """For `av.open`. Raises SourceError where the card or its driver does not decode."""

    def compare(self, frame: VideoFrame, codec: str, to_host: Callable[[VideoFrame], Rgb8]) -> None:
        """Learn what is to be known of a file from its first picture. to_host: makes RGB of a picture on the host."""

    def takes(self, frame: VideoFrame) -> bool:
        """The picture stays on the card."""

    def why_not(self, frame: VideoFrame) -> str:
        """In words, why a picture does not stay on the card."""

    def on_host(self, frame: VideoFrame) -> VideoFrame:
        """A picture of the card as a frame of the host; others as they are."""

    def taken(self, stamp: Stamp, frame: VideoFrame, to_host: Callable[[VideoFrame], Rgb8]) -> CardFrame:
        """A picture that stays on the card."""


def probe(url: str) -> VideoInfo:
    """Information on the file. Decodes one frame, to detect a file without any. Raises SourceError."""
    source = FileSource(path_of(url))
    source.close()
    return source.info


def open(
    url: str,
    size: tuple[int, int] | None,
    frames: int | None,
    threads: int = 2,
    decoder: PictureDecoder | None = None,
) -> "FileSource":
    """Open a path or `file://` URL. threads: threads of the decoder; decoder: that of a card. Raises SourceError."""
    return FileSource(path_of(url), size, frames, threads, decoder)


class FileSource:
    """The frames of a video file in presentation order, each once, with the container's times.

    Damaged packets are skipped and counted. Only a few decoded frames are in memory. One thread at a time.

    decoder  decodes on a card. Its pictures have their own size, since scaling is left to who takes them
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        threads: int = 2,
        decoder: PictureDecoder | None = None,
    ) -> None:
        self._path = path
        self._card = decoder
        size = size if decoder is None else None
        self._container = open_clip(path, None if decoder is None else decoder.settings())
        try:
            with net(str(path)):
                self._begin(size, frames, threads)
        except BaseException:
            self._container.close()
            raise

    def _begin(self, size: tuple[int, int] | None, frames: int | None, threads: int) -> None:
        path = self._path
        self._stream = require_picture(self._container, path)
        self._stream.thread_type = "AUTO"  # frame threads delay frames, which does not matter for a file
        self._stream.codec_context.thread_count = threads
        if self._card is not None:
            self._stream.codec_context.options = dict(self._card.surfaces)
        self._which = which_picture(self._container)
        self._demuxer = Demuxer(self._container, [self._stream])
        self._decoder = Decoder(self._stream)
        self._undisplayed: dict[str, int] = {}
        self._damaged = 0
        self._count = 0
        self._limit = frames
        self._lost: list[str] = []
        self._fields = Deinterlacer(self._stream.codec_context)
        self._decoded = self._fields.all_of(self._decode())
        self._next = next(self._decoded, None)
        if self._next is None:
            raise SourceError(
                f"{path}: not one frame of its {self._stream.codec_context.name} video could be decoded. "
                "The file is damaged or was cut short."
            )
        pixel_aspect = exact(self._stream.sample_aspect_ratio)
        try:
            self._display = Display(self._next, pixel_aspect, size)
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from None
        if self._card is not None:
            self._card.compare(self._next, self._stream.codec_context.name, self._display)
        self.info = self._info()
        start = round(self._demuxer.start_of(self._stream) / self.info.time_base)
        self._times = Times(self.info.time_base, start, self.info.fps)

    def read(self) -> RawFrame | None:
        """The next frame; None at the end."""
        while self._count != self._limit:
            try:
                frame, self._next = self._next or next(self._decoded, None), None
                if frame is None:
                    self._lost = self._losses()  # before the container is closed
                    return None
                pts_ns = self._times(frame.pts, frame.dts)
                if self._stays(frame):
                    return self._taken(frame, pts_ns)
                rgb = self._display(frame)
            except Exception as error:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors: container.py)
                self._undisplayed[met(error)] = self._undisplayed.get(met(error), 0) + 1
                continue
            self._damaged += frame.is_corrupt
            stamp = Stamp(seq=self._count, pts_ns=pts_ns)
            self._count += 1
            return RawFrame(stamp, rgb)
        return None

    def _stays(self, frame: VideoFrame) -> bool:
        """The frame's picture stays on the card that decoded it."""
        if self._card is None:
            return False
        stays = self._card.takes(frame) and self._display.natural == (frame.width, frame.height)
        if not stays:
            self._display.tell(f"decoder card: pictures are taken on the host, since {self._card.why_not(frame)}")
        return stays

    def _taken(self, frame: VideoFrame, pts_ns: int) -> RawFrame:
        assert self._card is not None
        self._damaged += frame.is_corrupt
        stamp = Stamp(seq=self._count, pts_ns=pts_ns)
        self._count += 1
        return self._card.taken(stamp, frame, self._display)

    def compose_on(self, background: Rgb) -> None:
        """Set the background of transparent parts, from the next frame on."""
        self._display.background = background

    @property
    def warning(self) -> str | None:
        """A line for the user: conversions of the pictures; after the end also lost frames and repaired times."""
        lines = [*self._lost, *filter(None, [self._which, self._fields.note]), *self._display.notes]
        return f"{self._path}: {'; '.join(lines)}." if lines else None

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._next = None
        self._limit = self._count  # read() must not touch a closed container
        self._decoded.close()
        self._container.close()

    def _losses(self) -> list[str]:
        lines = []
        missing = self._missing()
        if missing is not None:
            lines.append(f"{self._count} frames decoded, {missing}: the file is cut short or broken")
        lines += [f"{count} frames cannot be shown: {why}" for why, count in list(self._undisplayed.items())[:1]]
        if self._demuxer.mended:
            lines.append(self._demuxer.mended)
        if self._times.mended:
            lines.append(f"{self._times.mended} of {self._count} frames had no time of their own or a wrong one")
        return lines

    def _decode(self) -> Generator[VideoFrame, None, None]:
        for packet in self._demuxer:
            yield from map(self._deinterlaceable, self._decoder(packet))
        yield from map(self._deinterlaceable, self._decoder(None))  # those it holds to reorder them

    def _deinterlaceable(self, frame: VideoFrame) -> VideoFrame:
        if self._card is None or not frame.interlaced_frame:
            return frame
        return self._card.on_host(frame)

    def _info(self) -> VideoInfo:
        stream = self._stream
        fps = plausible_rate(stream.average_rate, stream.guessed_rate, stream.base_rate, fastest=_FASTEST)
        time_base = exact(stream.time_base) or 1 / fps
        if time_base > _LONGEST:
            time_base = 1 / fps
        frames = stream.frames or None
        if frames is None and stream.duration:
            frames = max(1, round(stream.duration * time_base * fps))
        if frames is not None and self._limit is not None:
            frames = min(frames, self._limit)
        width, height = self._display.natural
        return VideoInfo(width, height, fps, time_base, frames, str(self._path.absolute()))

    def _missing(self) -> str | None:
        """In words, what is missing compared with the container's figures; None: nothing.

        Fewer frames than its number of frames prove nothing, since an edit list may hide some. The duration must be too
        short as well.
        """
        duration = self._duration()
        short = duration - Fraction(self._times.last_ns, 10**9) - 1 / self.info.fps if duration else Fraction(0)
        if self._demuxer.mended:  # the container's duration includes the jumps
            short = Fraction(0)
        promised = self._stream.frames
        if promised > self._count and short * self.info.fps > Fraction(1, 2):
            return f"the container promised {promised}"
        if not promised and duration and short > max(Fraction(1), 3 / self.info.fps):
            return f"the container promised {float(duration):.1f} s, about {round(duration * self.info.fps)}"
        lost = self._damaged + self._decoder.damaged + self._demuxer.errors
        if lost:
            return f"{lost} pieces of the file were damaged"
        return None

    def _duration(self) -> Fraction | None:
        """Duration of the video according to the container, s; None: it has none for the video alone."""
        if self._stream.duration:
            return self._stream.duration * self.info.time_base
        if len(self._container.streams) == 1 and self._container.duration:
            return Fraction(self._container.duration, 10**6) - self._demuxer.start_of(self._stream)
        return None
