"""Encoding pictures for each container, with BT.709 colours and tags."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from warpfuse.stages.sinks.bt709 import CODE, LIMITED, ToBt709

_LONGEST = Fraction(3600)  # longest duration of a picture, s: MP4 has 31 bits for it
_FINEST = 1 << 31  # containers and encoders have 32 bits, signed, for the denominator of a time base

_CLUSTERS = MappingProxyType({"cluster_time_limit": "1000", "flush_packets": "1"})  # for Matroska and WebM; ms
_X264 = MappingProxyType({"preset": "veryfast", "crf": "18"})
_VP9 = MappingProxyType({"deadline": "realtime", "cpu-used": "7", "crf": "24", "b": "0", "row-mt": "0"})


@dataclass(frozen=True, slots=True)
class Format:
    """A container with its codecs.

    muxer, codec         FFmpeg's names of the container and the video codec
    sound                FFmpeg's name of the codec for sound that cannot be copied
    options              options of the video codec
    pixels               FFmpeg's name of the pixel format that the codec gets
    muxer_options        options of the container
    recording_options    options that replace them for a recording, which must be playable at any time
    negative_times       it can hold sound that starts before the picture (hidden by an edit list)
    subtitles            FFmpeg's name of the codec for subtitles that cannot be copied
    covers, attachments  it can hold covers, and attached files
    """

    muxer: str
    codec: str = "libx264"
    sound: str = "aac"
    options: Mapping[str, str] = field(default_factory=lambda: _X264)
    pixels: str = "yuv420p"
    muxer_options: Mapping[str, str] = field(default_factory=dict)
    recording_options: Mapping[str, str] = field(default_factory=lambda: _CLUSTERS)
    negative_times: bool = False
    subtitles: str = "mov_text"
    covers: bool = True
    attachments: bool = False


_FAST_START = MappingProxyType({"movflags": "+faststart"})  # index first, so that players start during a download
# A fragment a second, each with its own index. At the end they become an ordinary file without being moved. The first
# index is written after the first fragment (delay_moov), since it needs the time of the first picture.
_FRAGMENTS = MappingProxyType(
    {"movflags": "+hybrid_fragmented+delay_moov", "frag_duration": "1000000", "flush_packets": "1"}
)
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".mp4": Format("mp4", muxer_options=_FAST_START, recording_options=_FRAGMENTS, negative_times=True),
        ".m4v": Format("mp4", muxer_options=_FAST_START, recording_options=_FRAGMENTS, negative_times=True),
        ".mov": Format(
            "mov", muxer_options=_FAST_START, recording_options=_FRAGMENTS, negative_times=True, covers=False
        ),
        ".mkv": Format("matroska", subtitles="subrip", covers=False, attachments=True),
        ".webm": Format("webm", "libvpx-vp9", "libopus", _VP9, subtitles="webvtt", covers=False),
    }
)

# The encoder of VP9 cannot look for better references while it codes alpha.
_VP9_ALPHA = MappingProxyType({**_VP9, "auto-alt-ref": "0"})
_PRORES = MappingProxyType({"profile": "4444", "vendor": "apl0"})  # some editors open Apple's own name only
WITH_ALPHA: Mapping[str, Format] = MappingProxyType(
    {
        ".mov": replace(FORMATS[".mov"], codec="prores_ks", options=_PRORES, pixels="yuva444p10le"),
        ".webm": replace(FORMATS[".webm"], options=_VP9_ALPHA, pixels="yuva420p"),
    }
)
"""The formats of frames with an alpha channel."""


class Encoder:
    """Encodes RGB or RGBA pictures as one stream of `out`: BT.709, limited range, with these tags.

    The caller muxes the packets. The same pictures and times give the same bytes.
    """

    def __init__(
        self, out: OutputContainer, fmt: Format, size: tuple[int, int], fps: Fraction, time_base: Fraction, threads: int
    ) -> None:
        self.time_base = time_base if time_base.denominator < _FINEST else Fraction(1, 1_000_000)
        if self.time_base > 1:  # libvpx does not accept a tick longer than a second
            self.time_base = Fraction(1, self.time_base.denominator)
        longest = min(_LONGEST / self.time_base, Fraction(_FINEST - 1))
        self._period = max(1, round(min(1 / (fps * self.time_base), longest)))
        stream: Any = out.add_stream(fmt.codec, rate=_nominal(fps), options=_reproducible(fmt, size[0]))
        self._stream: VideoStream = stream
        context = self._stream.codec_context
        context.width, context.height = size
        context.pix_fmt = fmt.pixels
        context.time_base = self.time_base
        context.thread_count = threads
        context.color_range = LIMITED
        context.colorspace = context.color_primaries = context.color_trc = CODE
        self._to_yuv = ToBt709(fmt.pixels)
        self._measured = fmt.muxer in ("mp4", "mov")
        self._first: int | None = None
        self._last: int | None = None
        self._first_dts: int | None = None

    def encode(self, rgb: npt.NDArray[np.uint8], pts_ns: int) -> "list[Packet[Any]]":
        """Encode a picture, uint8 [h, w, 3]. Returns the packets that are ready, often none yet."""
        frame = self._to_yuv(rgb)
        tick = round(Fraction(pts_ns, 10**9) / self.time_base)
        if self._last is not None:
            tick = max(tick, self._last + 1)  # no container accepts two pictures with the same time
        self._last = tick
        self._first = tick if self._first is None else self._first
        frame.pts, frame.time_base = tick, self.time_base
        frame.duration = self._period
        return self._timed(self._stream.encode(frame))

    def flush(self) -> "list[Packet[Any]]":
        """The last packets of the encoder.

        The duration of an MP4 is the span of the decoding times plus the duration of the last packet. With uneven times
        at the end it is shorter than the pictures, and players cut the rest off. So the last packet is made longer.
        """
        packets = self._timed(self._stream.encode(None))
        if self._measured and packets and packets[-1].dts is not None and self._first_dts is not None:
            assert self._first is not None and self._last is not None, "packets come of pictures"
            shown, spanned = self._last + self._period - self._first, packets[-1].dts - self._first_dts
            packets[-1].duration = max(packets[-1].duration or 0, shown - spanned)
        return packets

    @property
    def end(self) -> Fraction:
        """End of the last picture, s."""
        return ((self._last or 0) + self._period) * self.time_base

    def _timed(self, packets: Any) -> "list[Packet[Any]]":
        timed: list[Packet[Any]] = list(packets)
        for packet in timed:
            self._first_dts = packet.dts if self._first_dts is None else self._first_dts
            packet.duration = packet.duration or self._period  # else the last picture has no duration in the container
        return timed


def recorded(fmt: Format) -> Format:
    """The format for recording a live source.

    Fragments of an MP4 end at the last decoding time, regardless of the last packet's duration. So B frames are off,
    and decoding times equal presentation times.
    """
    return replace(fmt, options={**fmt.options, "bf": "0"}) if fmt.muxer in ("mp4", "mov") else fmt


def holds(fmt: Format, stream: Any) -> bool:
    """True if the container accepts the stream as it is. The muxer is tried, on a file in memory."""
    try:
        _begin(fmt.muxer, stream, {})
    except Exception:  # noqa: BLE001  (any error means no)
        return False
    if fmt.muxer in ("mp4", "mov"):  # these check a codec's extradata only when they write their index
        try:
            _begin(fmt.muxer, stream, {"movflags": "empty_moov"})
        except av.error.InvalidDataError:
            return False
        except Exception:  # noqa: BLE001  (AC-3 needs packets before an index, which is no reason against it)
            return True
    return True


def _begin(muxer: str, stream: Any, options: dict[str, str]) -> None:
    """Write the header of a file with this stream only, in memory. Raises what the muxer raises."""
    with av.open(io.BytesIO(), "w", format=muxer, container_options=options) as trial:
        trial.add_stream_from_template(stream)
        trial.start_encoding()


def _reproducible(fmt: Format, width: int) -> dict[str, str]:
    """The options of a format that give the same bytes in every run, for pictures of this width.

    Note: x264's mbtree. Unless a row has a multiple of eight macroblocks (of 16 pixels), it reads uninitialized memory,
    even in one thread, and quantisers differ from run to run.
    """
    uneven = fmt.codec == "libx264" and -(-width // 16) % 8 != 0
    return {**fmt.options, "mbtree": "0"} if uneven else dict(fmt.options)


def _nominal(fps: Fraction) -> Fraction:
    """A rate that encoders accept. They use it for levels and look-ahead only; no time is computed from it."""
    return min(max(fps, Fraction(1)), Fraction(1000)).limit_denominator(100_000)
