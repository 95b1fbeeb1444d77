"""Open a clip with FFmpeg's libraries, find its picture, and say in one line why it cannot be had.

What lies in a file must not end in a traceback, and FFmpeg's bindings raise more than FFmpeg's errors: ValueError of
a number they do not know, UnicodeDecodeError, OverflowError, MemoryError. So all that reads goes through here: `net`
around opening, `Demuxer` for packets, `Decoder` for frames.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from warpfuse.engine.errors import WarpfuseError, one_line
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.times import PacketTimes, told

av.logging.set_level(None)  # FFmpeg's own lines would run into the progress bar; what matters is raised or counted

_TEXT = {"tty", "ansi"}  # FFmpeg draws any text file as an old terminal would: never what is meant
_TS_DISCONT = 0x200  # AVFMT_TS_DISCONT
_STUBBORN = 8  # read errors in a row after which a file counts as ended
_PARSED = 2  # packets that a parser cuts from the last piece of a part: its mark is on the first of them
_SETTLED = 30  # packets after which all streams are past a joint
_MOST_PIXELS = 1 << 28  # a damaged header may claim pictures that no memory holds
_USUAL_RATE = Fraction(25)  # of pictures that tell none

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

LENIENT: dict[str, Any] = {"metadata_errors": "replace"}
"""For av.open: tags in another alphabet are no reason not to read a file."""

ODD_NAMES = {"allowed_extensions": "ALL", "allowed_segment_extensions": "ALL", "extension_picky": "0"}
"""For FFmpeg's HLS: segments may be called what they like. What may be reached is decided by the protocols."""


def open_clip(path: Path) -> InputContainer:
    """Open `path` for reading. The caller closes the container. Raises SourceError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file. Check the name, or try 'pattern:' for a synthetic picture.") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}). Check the folder's permissions.") from None
    if stat.S_ISDIR(mode):
        raise SourceError(f"{path}: a video file is expected, this is a folder. Name a file in it.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: no permission to read it. Try: chmod u+r '{path}'")
    try:
        # "file:" keeps a colon in the name from being read as a protocol, "none" a percent sign from being read as
        # the number of a picture; a playlist must not reach the network.
        options = {"protocol_whitelist": "file,crypto,data", "pattern_type": "none", **ODD_NAMES}
        container: InputContainer = av.open(f"file:{path}", container_options=options, **LENIENT)
    except PermissionError:
        raise SourceError(f"{path}: no permission to read it. Try: chmod u+r '{path}'") from None
    except Exception as error:  # noqa: BLE001  (see the head of the file)
        size = path.stat().st_size
        said = "" if isinstance(error, av.error.FFmpegError | OSError) else f" ({met(error)})"
        raise SourceError(
            f"{path}: a video file is expected, FFmpeg finds none in these {size} bytes{said}. "
            "The file is of another kind, or was cut before its index was written."
        ) from None
    if container.format.name in _TEXT:
        container.close()
        raise SourceError(f"{path}: a video file is expected, this is text.")
    return container


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """The streams of moving pictures that can be decoded. A cover in an audio file is none."""
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
        and stream.codec_context is not None
        and stream.codec_context.name not in _TEXT
    ]


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The stream of moving pictures to show: the one that is marked as the default, else the first."""
    streams = picture_streams(container)
    return next((stream for stream in streams if stream.disposition & Disposition.default), next(iter(streams), None))


def which_picture(container: InputContainer) -> str | None:
    """One line of which stream is shown, where there are several."""
    streams, shown = picture_streams(container), picture_stream(container)
    if shown is None or len(streams) < 2:
        return None
    return f"{len(streams)} video streams: that of {shown.width}x{shown.height} (stream {shown.index}) is shown"


def require_picture(container: InputContainer, path: Path) -> VideoStream:
    """`picture_stream`, or a SourceError that says what the file holds instead."""
    stream = picture_stream(container)
    if stream is not None:
        return stream
    held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    undecodable = any(stream.codec_context is None for stream in container.streams.video)
    reason = "its codec is unknown to this FFmpeg" if undecodable else "covers in audio files do not count"
    raise SourceError(f"{path}: no video stream: the file holds {held} ({reason}).")


def exact(value: Any) -> Fraction | None:
    """PyAV's rational as a Fraction, None if unset: before PyAV 19 a Fraction or None, since then an AVRational."""
    if not value or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def met(error: BaseException) -> str:
    """What was met, for a line of text: without the address that PyAV's errors hold, and never longer than a line."""
    said = getattr(error, "strerror", None) or one_line(error, 120)
    kind = type(error).__name__
    return said if isinstance(error, av.error.FFmpegError) and said else f"{kind}: {said}" if said else kind


@contextmanager
def net(name: str) -> Iterator[None]:
    """Whatever is raised from what lies in the input `name` becomes a SourceError of one line."""
    try:
        yield
    except WarpfuseError:
        raise
    except Exception as error:
        raise SourceError(
            f"{name}: cannot be read ({met(error)}). It is damaged, or of a kind that this FFmpeg reads only in part; "
            "what a player still shows can be saved anew: ffmpeg -i FILE NEW.mp4"
        ) from error


def decoding(stream: Any) -> Any:
    """What decodes the stream's packets: the stream, or for a WebM with alpha libvpx, for FFmpeg's own decoder leaves
    the alpha out."""
    own = stream.codec_context
    name = _ALPHA_DECODERS.get(own.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return stream
    try:
        context: Any = av.CodecContext.create(name, "r")
    except av.error.FFmpegError:  # an FFmpeg without libvpx
        return stream
    context.options, context.thread_count, context.extradata = own.options, own.thread_count, own.extradata
    for tag in ("color_primaries", "color_trc", "colorspace", "color_range"):
        setattr(context, tag, getattr(own, tag))
    return context


class Decoder:
    """Frames of one stream, past what cannot be decoded.

    damaged  packets that could not be decoded so far
    """

    def __init__(self, stream: Any) -> None:
        self.damaged = 0
        context = stream.codec_context
        self._source = stream
        if stream.type == "video":
            context.options = {**context.options, "max_pixels": str(_MOST_PIXELS)}
            self._source = decoding(stream)

    def __call__(self, packet: "Packet[Any] | None") -> list[Any]:
        """The frames that are ready after this packet; None: those the decoder still holds back, at the end."""
        try:
            return list(self._source.decode(packet))
        except Exception:  # noqa: BLE001  (see the head of the file)
            self.damaged += 1
            return []


class Demuxer:
    """The packets of some streams of one file, past what cannot be read, with the jumps of its clock taken out.

    Whoever reads a file twice, for its picture and for its sound, gets times that fit: they depend on the file alone.

    errors  stretches that could not be read so far, and packets the container knows to be damaged
    """

    def __init__(
        self,
        container: InputContainer,
        streams: "list[Any]",
        passes_over: tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        """`passes_over`: errors of reading behind which the rest may be whole; others are raised."""
        self.errors = 0
        self._container = container
        self._passes_over = passes_over
        self._wanted = {stream.index for stream in streams}
        starts_anew = _starts_anew(container)
        self._read = list(streams)
        if starts_anew:  # one clock for all: a jump shows in whichever stream comes first
            picture = picture_stream(container)
            clocked = [*container.streams.audio, *([picture] if picture is not None else [])]
            self._read += [stream for stream in clocked if stream.index not in self._wanted]
        self._times = PacketTimes({stream.index: _clock(stream) for stream in self._read}, starts_anew)
        self._since_leap: int | None = None  # packets since the last leap; None: told, or none yet
        self._torn: dict[int, int] = {}  # streams marked as damaged a few packets ago, and how many

    def __iter__(self) -> "Iterator[Packet[Any]]":
        """Each packet once, in the file's order; not FFmpeg's empty ones that flush a decoder."""
        in_a_row = 0
        while in_a_row < _STUBBORN:
            try:
                for packet in self._container.demux(*self._read):
                    in_a_row = 0
                    if packet.size:
                        self._mend(packet)
                        if packet.stream_index in self._wanted:
                            yield packet
                return
            except self._passes_over:  # a fresh demux() goes on behind the damage
                in_a_row += 1
                self.errors += in_a_row == 1

    def start_of(self, stream: Stream) -> Fraction:
        """Seconds at which the stream starts, on the clock of the packets. Pictures and sound count from here alike.

        Sure once a packet of the stream came."""
        return (stream.start_time or 0) * _clock(stream)[0] + self._times.shift(stream.index)

    @property
    def mended(self) -> str | None:
        """One line of where the times were mended so far, None if they were not."""
        return told(self._times.jumps)

    def news(self) -> str | None:
        """One line of where the times were mended since the last call, once the joint lies behind; else None."""
        if self._since_leap is None or self._since_leap < _SETTLED:
            return None
        line, self._since_leap = self.mended, None
        self._times.forget()
        return line

    def _mend(self, packet: "Packet[Any]") -> None:
        index, leaps = packet.stream_index, self._times.leaps
        packet.pts, packet.dts = self._times(index, packet.pts, packet.dts, packet.duration)
        if self._times.leaps > leaps:
            self.errors -= len(self._torn)  # not damage: the end of a part that another was joined to
            self._torn.clear()
            self._since_leap = 0
        elif self._since_leap is not None:
            self._since_leap += 1
        if packet.is_corrupt and index in self._wanted:
            self._torn[index] = 0
            self.errors += 1
        elif index in self._torn:
            self._torn[index] += 1
            if self._torn[index] > _PARSED:
                del self._torn[index]


def picture_origin(container: InputContainer, path: Path) -> Fraction | None:
    """Seconds at which the picture of a file starts, on the clock of a `Demuxer`'s packets; None without a picture.

    Where only its first packet tells, the file is opened once more and read as far as that. Raises SourceError."""
    picture = picture_stream(container)
    if picture is None:
        return None
    if picture.start_time is not None and not _starts_anew(container):
        return picture.start_time * _clock(picture)[0]
    with open_clip(path) as again:
        picture = require_picture(again, path)
        demuxer = Demuxer(again, [picture])
        next(iter(demuxer), None)
        return demuxer.start_of(picture)


def _starts_anew(container: InputContainer) -> bool:
    """The clock of this format may start anew in mid-file."""
    return bool(container.format.flags & _TS_DISCONT)


def _clock(stream: Any) -> tuple[Fraction, int]:
    """Seconds a tick of the stream, and the ticks of a packet that tells no length."""
    time_base = exact(stream.time_base) or Fraction(1)
    rate = exact(getattr(stream, "average_rate", None)) or _USUAL_RATE
    return time_base, max(1, round(1 / (rate * time_base)))
