"""Reading video files with FFmpeg's libraries: opening, streams, packets and frames.

No file may cause a traceback. PyAV raises more than FFmpeg's errors: ValueError for an unknown number,
UnicodeDecodeError, OverflowError, MemoryError. So everything is read through this module: `net` around opening,
`Demuxer` for packets, `Decoder` for frames.
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
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from warpfuse.engine.errors import WarpfuseError, one_line
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.times import PacketTimes, told

av.logging.set_level(None)  # FFmpeg's messages would disturb the progress bar; what matters is raised or counted

_TEXT = {"tty", "ansi"}  # FFmpeg renders any text file as a terminal, which is never meant
_TS_DISCONT = 0x200  # AVFMT_TS_DISCONT
_STUBBORN = 8  # read errors in a row after which a file counts as ended
_PARSED = 2  # packets after a corrupt one that a parser may have cut from the same piece of data
_SETTLED = 30  # packets after which all streams have passed a joint of two recordings
_MOST_PIXELS = 1 << 28  # of a picture: a damaged header may claim sizes that no memory can hold
_USUAL_RATE = Fraction(25)  # of streams without a rate

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

LENIENT: dict[str, Any] = {"metadata_errors": "replace"}
"""Options for av.open: a file with undecodable tags is still read."""

ODD_NAMES = {"allowed_extensions": "ALL", "allowed_segment_extensions": "ALL", "extension_picky": "0"}
"""Options for FFmpeg's HLS: segments may have any name. The whitelist of protocols limits what can be read."""


def open_clip(path: Path, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open `path` for reading. The caller closes the container. Raises SourceError.

    hwaccel  decodes what it can; the rest is decoded on the host
    """
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
        # "file:" keeps FFmpeg from reading a colon in the name as a protocol, and "none" from reading a percent sign as
        # a picture number. The whitelist keeps playlists from reaching the network.
        options = {"protocol_whitelist": "file,crypto,data", "pattern_type": "none", **ODD_NAMES}
        container: InputContainer = av.open(f"file:{path}", container_options=options, hwaccel=hwaccel, **LENIENT)
    except PermissionError:
        raise SourceError(f"{path}: no permission to read it. Try: chmod u+r '{path}'") from None
    except Exception as error:  # noqa: BLE001  (see the head of the file)
        size = path.stat().st_size
        detail = "" if isinstance(error, av.error.FFmpegError | OSError) else f" ({met(error)})"
        raise SourceError(
            f"{path}: a video file is expected, FFmpeg finds none in these {size} bytes{detail}. "
            "The file is of another kind, or was cut before its index was written."
        ) from None
    if container.format.name in _TEXT:
        container.close()
        raise SourceError(f"{path}: a video file is expected, this is text.")
    return container


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams that can be decoded, without covers of audio files."""
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
        and stream.codec_context is not None
        and stream.codec_context.name not in _TEXT
    ]


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The video stream to show: the one marked as default, else the first; None: there is none."""
    streams = picture_streams(container)
    return next((stream for stream in streams if stream.disposition & Disposition.default), next(iter(streams), None))


def which_picture(container: InputContainer) -> str | None:
    """A line for the user about which video stream is shown, if there are several; else None."""
    streams, shown = picture_streams(container), picture_stream(container)
    if shown is None or len(streams) < 2:
        return None
    return f"{len(streams)} video streams: that of {shown.width}x{shown.height} (stream {shown.index}) is shown"


def require_picture(container: InputContainer, path: Path) -> VideoStream:
    """`picture_stream`. Raises SourceError without one, and lists the file's content."""
    stream = picture_stream(container)
    if stream is not None:
        return stream
    held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    undecodable = any(stream.codec_context is None for stream in container.streams.video)
    reason = "its codec is unknown to this FFmpeg" if undecodable else "covers in audio files do not count"
    raise SourceError(f"{path}: no video stream: the file holds {held} ({reason}).")


def exact(value: Any) -> Fraction | None:
    """PyAV's rational number as a Fraction; None if unset. Before PyAV 19 it was a Fraction or None itself."""
    if not value or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def met(error: BaseException) -> str:
    """An error in short, for a line of text: without the address that PyAV's errors contain."""
    text = getattr(error, "strerror", None) or one_line(error, 120)
    kind = type(error).__name__
    return text if isinstance(error, av.error.FFmpegError) and text else f"{kind}: {text}" if text else kind


@contextmanager
def net(name: str) -> Iterator[None]:
    """Within the block, any error that the content of input `name` causes becomes a SourceError of one line."""
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
    """The decoder of a stream: the stream itself, or libvpx for WebM with alpha, which FFmpeg's decoder ignores."""
    default = stream.codec_context
    name = _ALPHA_DECODERS.get(default.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return stream
    try:
        context: Any = av.CodecContext.create(name, "r")
    except av.error.FFmpegError:  # an FFmpeg without libvpx
        return stream
    context.options, context.thread_count, context.extradata = default.options, default.thread_count, default.extradata
    for tag in ("color_primaries", "color_trc", "colorspace", "color_range"):
        setattr(context, tag, getattr(default, tag))
    return context


class Decoder:
    """Decodes the packets of one stream, and skips those that cannot be decoded.

    damaged  number of packets that could not be decoded so far
    """

    def __init__(self, stream: Any) -> None:
        self.damaged = 0
        context = stream.codec_context
        self._source = stream
        if stream.type == "video":
            context.options = {**context.options, "max_pixels": str(_MOST_PIXELS)}
            self._source = decoding(stream)

    def __call__(self, packet: "Packet[Any] | None") -> list[Any]:
        """The frames that are ready after this packet; for None the last ones, at the end."""
        try:
            return list(self._source.decode(packet))
        except Exception:  # noqa: BLE001  (see the head of the file)
            self.damaged += 1
            return []


class Demuxer:
    """The packets of some streams of one file, with unreadable parts skipped and jumps of the clock removed.

    The times depend on the file only. So a file that is read twice, for its picture and its sound, has the same times.

    errors  number of parts that could not be read so far, and of packets marked as corrupt
    """

    def __init__(
        self,
        container: InputContainer,
        streams: "list[Any]",
        passes_over: tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        """passes_over: errors after which reading goes on; others are raised."""
        self.errors = 0
        self._container = container
        self._passes_over = passes_over
        self._wanted = {stream.index for stream in streams}
        starts_anew = _starts_anew(container)
        self._read = list(streams)
        if starts_anew:  # all streams have one clock, and any of them may be the first to show a jump
            picture = picture_stream(container)
            clocked = [*container.streams.audio, *([picture] if picture is not None else [])]
            self._read += [stream for stream in clocked if stream.index not in self._wanted]
        self._times = PacketTimes({stream.index: _clock(stream) for stream in self._read}, starts_anew)
        self._since_leap: int | None = None  # packets since the last jump; None: none, or reported already
        self._torn: dict[int, int] = {}  # streams with a corrupt packet lately, and the packets since

    def __iter__(self) -> "Iterator[Packet[Any]]":
        """Yield the packets in the file's order, without FFmpeg's empty packets for flushing a decoder."""
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
            except self._passes_over:  # a new demux() continues after the damage
                in_a_row += 1
                self.errors += in_a_row == 1

    def start_of(self, stream: Stream) -> Fraction:
        """Start of the stream, s by the clock of the packets. Pictures and sound both count from it.

        It is certain only after the first packet of the stream.
        """
        return (stream.start_time or 0) * _clock(stream)[0] + self._times.shift(stream.index)

    @property
    def mended(self) -> str | None:
        """A line for the user about jumps removed so far; None: none."""
        return told(self._times.jumps)

    def news(self) -> str | None:
        """A line for the user about jumps since the last call, once all streams have passed them; else None."""
        if self._since_leap is None or self._since_leap < _SETTLED:
            return None
        line, self._since_leap = self.mended, None
        self._times.forget()
        return line

    def _mend(self, packet: "Packet[Any]") -> None:
        index, leaps = packet.stream_index, self._times.leaps
        packet.pts, packet.dts = self._times(index, packet.pts, packet.dts, packet.duration)
        if self._times.leaps > leaps:
            self.errors -= len(self._torn)  # no damage: the cut end of a recording to which another was joined
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
    """Start of a file's picture, s by the clock of a `Demuxer`'s packets; None without a picture.

    If only the first packet tells, the file is opened a second time and read up to there. Raises SourceError.
    """
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
    """In this format the clock may start again within a file."""
    return bool(container.format.flags & _TS_DISCONT)


def _clock(stream: Any) -> tuple[Fraction, int]:
    """A stream's time base, s, and the duration of packets without one, ticks."""
    time_base = exact(stream.time_base) or Fraction(1)
    rate = exact(getattr(stream, "average_rate", None)) or _USUAL_RATE
    return time_base, max(1, round(1 / (rate * time_base)))
