"""Low-latency H.264 encoding, with sound beside it: no look-ahead, no B frames, no delayed frame."""

from fractions import Fraction
from functools import cache
from typing import Any, Protocol

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.codec.context import CodecContext
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.address import StreamSettings
from warpfuse.stages.sinks.bt709 import CODE, LIMITED, ToBt709
from warpfuse.stages.sinks.stream_sound import SoundBuffer, SoundEncoder

TIME_BASE = Fraction(1, 90_000)  # that of RTP and MPEG-TS
_BITS_A_PIXEL = 0.1
_LEAST_KBPS = 300
_IN_ORDER = {"max_interleave_delta": "1"}  # us: the muxer never keeps two pictures while it waits for sound

# Note: sliced threads. `tune=zerolatency` cuts pictures into slices, one a thread. Relays that take a packet for a
# picture then show parts of pictures. So there is one thread with one slice.
_X264 = {"tune": "zerolatency", "bf": "0", "x264-params": "sliced-threads=0:slices=1:repeat-headers=1:scenecut=0"}
_NVENC = {"preset": "p2", "tune": "ull", "zerolatency": "1", "delay": "0", "bf": "0", "rc": "cbr", "forced-idr": "1"}


class Bytes(Protocol):
    """A file-like object that takes the encoded bytes."""

    def write(self, data: bytes) -> int:
        """Write all bytes. Returns their number."""


class LiveEncoder:
    """Encodes pictures of one size into `out`, as NUT, with sound if there is a buffer of it.

    Without sound, all bytes of a picture are written before `write` returns. With sound, the muxer may keep the last
    picture or the last packet of sound until the next `write`, to put them in order.

    NUT suits a pipe to another process: it has codec headers and exact times, and its reader needs no data beyond a
    packet. Each connection needs a new encoder, which starts with a key frame. One thread at a time.
    """

    def __init__(
        self,
        out: Bytes,
        size: tuple[int, int],
        fps: Fraction,
        settings: StreamSettings,
        heard: SoundBuffer | None = None,
    ) -> None:
        name = codec_for(settings.codec)
        kbps = settings.kbps or max(_LEAST_KBPS, int(size[0] * size[1] * float(fps) * _BITS_A_PIXEL / 1000))
        options = {
            **(_X264 | {"preset": settings.preset} if name == "libx264" else _NVENC),
            "b": f"{kbps}k",
            "maxrate": f"{kbps}k",
            "bufsize": f"{kbps // 2}k",
            "g": str(max(1, round(settings.gop * fps))),
        }
        self._out: OutputContainer = av.open(
            out, "w", format="nut", container_options={"flush_packets": "1", **_IN_ORDER}, buffer_size=1 << 16
        )
        stream: Any = self._out.add_stream(name, rate=fps.limit_denominator(1000), options=options)
        context: VideoCodecContext = stream.codec_context
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        context.time_base = TIME_BASE
        context.thread_count = 1
        context.color_range = LIMITED
        context.colorspace = context.color_primaries = context.color_trc = CODE
        self._stream = stream
        self._sound = None if heard is None else SoundEncoder(self._out, heard)
        self._to_yuv = ToBt709("yuv420p")
        self._last = -1

    def write(self, rgb: npt.NDArray[np.uint8], at_ns: int, key: bool = False, pts_ns: int = 0) -> None:
        """Encode and send one picture, and the sound up to its time.

        at_ns   time of the picture since the connection began
        key     make it a key frame
        pts_ns  its time by the clock of the sound
        """
        if self._sound is not None:
            self._out.mux(self._sound.advance(at_ns, pts_ns))
        frame = self._to_yuv(rgb)
        self._last = max(self._last + 1, round(at_ns * Fraction(9, 100_000)))
        frame.pts, frame.time_base = self._last, TIME_BASE
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._out.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write the end of the stream."""
        self._out.mux(self._stream.encode(None))
        if self._sound is not None:
            self._out.mux(self._sound.flush())
        self._out.close()


@cache
def codec_for(wanted: str) -> str:
    """The encoder to use: the named one; for "auto" NVENC if it can be opened, else x264.

    Raises SinkError when the named encoder cannot be opened.
    """
    if wanted == "auto":
        return "h264_nvenc" if _opens("h264_nvenc") else "libx264"
    if not _opens(wanted):
        remedy = "It needs an NVIDIA card and its driver." if wanted == "h264_nvenc" else "PyAV's wheels have it."
        raise SinkError(f"codec={wanted}: this machine cannot open that encoder. {remedy} Or leave codec at auto.")
    return wanted


def _opens(name: str) -> bool:
    if name not in av.codecs_available:
        return False
    try:
        context: Any = CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
        context.time_base, context.framerate = TIME_BASE, Fraction(30)
        context.open()
    except (av.error.FFmpegError, ValueError):
        return False
    return True
