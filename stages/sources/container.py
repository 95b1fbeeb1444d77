"""Open a clip with FFmpeg's libraries, find its picture, and say in one line why it cannot be had."""

import os
import stat
from collections.abc import Iterator
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

from warpfuse.stages.errors import SourceError

av.logging.set_level(None)  # FFmpeg's own lines would run into the progress bar; what matters is raised or counted

_TEXT = {"tty", "ansi"}  # FFmpeg draws any text file as an old terminal would: never what is meant
_STUBBORN = 8  # read errors in a row after which a file counts as ended


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
        options = {"protocol_whitelist": "file,crypto,data", "pattern_type": "none"}
        container = av.open(f"file:{path}", container_options=options)
    except PermissionError:
        raise SourceError(f"{path}: no permission to read it. Try: chmod u+r '{path}'") from None
    except (av.error.FFmpegError, ValueError, OSError):
        size = path.stat().st_size
        raise SourceError(
            f"{path}: a video file is expected, FFmpeg finds none in these {size} bytes. "
            "The file is of another kind, or was cut before its index was written."
        ) from None
    if container.format.name in _TEXT:
        container.close()
        raise SourceError(f"{path}: a video file is expected, this is text.")
    return container


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures that can be decoded. A cover in an audio file is none."""
    for stream in container.streams.video:
        if stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            continue
        if stream.codec_context is not None and stream.codec_context.name not in _TEXT:
            return stream
    return None


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


def start_of(stream: Stream) -> Fraction:
    """Seconds at which the stream starts on the file's clock. Pictures and copied sound count from here alike."""
    return (stream.start_time or 0) * (exact(stream.time_base) or Fraction(1))


class Demuxer:
    """The packets of some streams of one file, past what cannot be read.

    errors  stretches that could not be read so far, and packets the container knows to be damaged
    """

    def __init__(self, container: InputContainer, streams: list[Stream]) -> None:
        self.errors = 0
        self._container = container
        self._streams = streams

    def __iter__(self) -> "Iterator[Packet[Any]]":
        """Each packet once, in the file's order; not FFmpeg's empty ones that flush a decoder."""
        in_a_row = 0
        while in_a_row < _STUBBORN:
            try:
                for packet in self._container.demux(*self._streams):
                    in_a_row = 0
                    if packet.size:
                        self.errors += packet.is_corrupt
                        yield packet
                return
            except (av.error.FFmpegError, OSError):  # a fresh demux() goes on behind the damage
                in_a_row += 1
                self.errors += in_a_row == 1
