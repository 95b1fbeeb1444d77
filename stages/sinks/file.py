"""A video file as a sink: H.264 or VP9 with the source's sound. The ending of the name selects the container."""

import logging
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import OutputContainer

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame, SoundPiece
from warpfuse.stages.sinks.bt709 import require_even
from warpfuse.stages.sinks.encoder import FORMATS, WITH_ALPHA, Encoder, Format, recorded
from warpfuse.stages.sinks.live_sound import LiveSound
from warpfuse.stages.sinks.sound import Sound
from warpfuse.stages.sinks.target import Target, require_writable
from warpfuse.stages.sources.schemes import path_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("file",)
KEEPS_SOUND = True

_LOG = logging.getLogger(__name__)


def carries_alpha(url: str) -> bool:
    """The container has a codec with an alpha channel."""
    return path_of(url).suffix.lower() in WITH_ALPHA


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError if `url` cannot be written: unknown ending, folder missing or not writable, the source itself."""
    path = path_of(url)
    if not path.is_dir():
        fmt = _format(path)
        if fmt.codec not in av.codecs_available:
            raise SinkError(f"{path}: this FFmpeg has no encoder {fmt.codec}. The wheels of PyAV have: pip install av")
    require_writable(path, source)


def open(
    url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None, threads: int = 1
) -> "FileSink":
    """Open a path or `file://` URL.

    threads  threads of the encoder; one by default, since the networks need the cores

    Raises SinkError, also for an odd width or height, which 4:2:0 video does not allow.
    """
    path = path_of(url)
    require_even(str(path), size)
    check(url, sound_from)
    return FileSink(path, info, size, sound_from, threads)


class FileSink:
    """Writes one video file. It gets its name when it is complete; until then an older file of that name stays.

    The file of a live source cannot be made again. It is a recording (`Target`): playable up to the last second at any
    time, and kept when the run fails, the disk is full or the process dies.

    Times are exact in MP4 and MOV; Matroska and WebM round them to milliseconds. The sound ends with the last picture.
    The same frames give the same bytes. One thread at a time.

    notes  lines for the user: what was transcoded or left out
    """

    def __init__(
        self, path: Path, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None, threads: int = 1
    ) -> None:
        self.notes: list[str] = []
        self._shape = (size[1], size[0], 4 if info.alpha else 3)
        self._frames = 0
        self._target = Target(path, recording=info.live)
        for left in self._target.left_behind():
            if info.live:
                self.notes.append(
                    f"{path}: the process that recorded it died; what it had recorded is kept: {left.name}"
                )
            else:
                left.unlink(missing_ok=True)  # it has no index, so it cannot be played
        self._sound: Sound | LiveSound | None = None
        fmt = WITH_ALPHA[path.suffix.lower()] if info.alpha else _format(path)
        fmt = recorded(fmt) if info.live else fmt
        try:
            # Without bitexact the file contains FFmpeg's version and, in Matroska, a random id.
            options = {"fflags": "+bitexact", **(fmt.recording_options if info.live else fmt.muxer_options)}
            if info.sound:
                options["max_interleave_delta"] = "1000000"  # us: pictures do not wait longer than this for sound
            out = av.open(str(self._target.part), "w", format=fmt.muxer, container_options=options)
            self._out: OutputContainer | None = out
            self._encoder = Encoder(out, fmt, size, info.fps, info.time_base, threads)
        except (av.error.FFmpegError, ValueError) as error:
            self._target.drop()
            raise SinkError(f"{path}: this FFmpeg cannot write {fmt.codec} into {fmt.muxer} ({error}).") from None
        if sound_from is not None:
            self._sound = Sound(sound_from, out, fmt, self.notes, info.frames / info.fps if info.frames else None)
        elif info.sound:
            self._sound = LiveSound(info.sound, out, fmt, self.notes)

    def hear(self, piece: SoundPiece) -> None:
        """Take a piece of a live source's sound, which is written with its pictures."""
        if isinstance(sound := self._sound, LiveSound):
            sound.hear(piece)

    def write(self, frame: RawFrame) -> None:
        """Encode one frame, uint8 RGB or RGBA of the sink's size. Raises SinkLost when the disk is full."""
        if frame.rgb.shape != self._shape:
            agreed = "x".join(map(str, self._shape))
            raise ValueError(f"{self._target.path}: frames of {agreed} were agreed on, got {frame.rgb.shape}")
        if self._out is None:
            raise ValueError(f"{self._target.path}: written to after it was closed")
        packets = self._writing(self._encoder.encode, frame.rgb, frame.stamp.pts_ns)
        self._writing(self._out.mux, packets)
        self._frames += 1
        if isinstance(self._sound, LiveSound) and self._frames == 1:
            self._sound.begin(Fraction(frame.stamp.pts_ns, 10**9))
        if self._sound is not None:
            self._writing(self._sound.advance, self._encoder.end)

    def close(self, complete: bool) -> None:
        """Finish the file and give it its name. With complete=False remove it, but keep a recording under its part's
        name. A second call does nothing.

        Raises SinkError when no frame was written, SinkLost when the disk is full.
        """
        if self._out is None:
            return
        if not self._frames or not (complete or self._target.recording):
            self._abandon()
            if complete:
                raise SinkError(f"{self._target.path}: not written, no frame arrived. Is the source empty?")
            return
        packets = self._writing(self._encoder.flush)
        self._writing(self._out.mux, packets)
        if self._sound is not None:
            self._writing(self._sound.finish, self._encoder.end)
        self._writing(self._out.close)
        if self._sound is not None and (line := self._sound.left_out(self._target.part)) is not None:
            self.notes.append(f"{self._target.path.name}: {line}")
        self._release()
        if complete:
            self._target.keep()
        else:
            _LOG.warning("%s: the run failed; what was recorded is kept: %s", self._target.path, self._target.part.name)

    def _writing(self, action: Callable[..., Any], *values: Any) -> Any:
        try:
            return action(*values)
        except (av.error.FFmpegError, OSError) as error:
            self._abandon()
            raise self._target.lost(error, self._frames) from None

    def _abandon(self) -> None:
        """Close and remove the file, except for a recording with frames. Errors are suppressed: another led here.

        The file is removed before it is closed, so that closing does not rearrange it.
        """
        if not (self._target.recording and self._frames):
            self._target.drop()
        if self._out is not None:
            with suppress(av.error.FFmpegError, OSError):
                self._out.close()
        self._release()

    def _release(self) -> None:
        self._out = None
        if self._sound is not None:
            self._sound.close()
            self._sound = None


def _format(path: Path) -> Format:
    fmt = FORMATS.get(path.suffix.lower())
    if fmt is None:
        got = f"'{path.suffix}' is none of them" if path.suffix else "it has none"
        raise SinkError(f"{path}: the name's ending chooses the container: {', '.join(FORMATS)}; {got}.")
    return fmt
