"""Streams received by FFmpeg's libraries: RTSP and RTMP as sources, and sessions for HTTP (`web.py`)."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import av
import av.error
import av.stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from warpfuse.engine.address import for_ffmpeg
from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.container import LENIENT, Decoder, Demuxer, exact, picture_streams
from warpfuse.stages.sources.faults import Broken, Fault, broken, foreign
from warpfuse.stages.sources.fields import Deinterlacer
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.session import Connect, Nature, ReceivedPicture, plausible_rate
from warpfuse.stages.sources.sound_packets import SoundPackets
from warpfuse.stages.sources.times import BestEffort, Times
from warpfuse.stages.sources.variants import USUAL_SIZE, nearest_above

SCHEMES: tuple[str, ...] = ("rtsp", "rtsps", "rtmp", "rtmps")
CONNECTS = True
HAS_SOUND = True

NETWORK = "rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,data,rtmp,rtmps,rtmpt"
"""Protocols that FFmpeg may use. Files are excluded, since an answer may refer to some."""
_OPTIONS: dict[str, dict[str, str]] = {
    "rtsp": {"rtsp_transport": "tcp", "allowed_media_types": "video+audio"},
    "rtmp": {"rtmp_live": "live", "tcp_nodelay": "1"},
}
# FFmpeg's own timeouts for a read, us. PyAV's timeout takes the GIL whenever it checks the clock, which delays packets
# when Python is busy.
_TIMEOUT = {"rtsp": "timeout", "rtmp": "rw_timeout"}
_TRANSPORTS = ("tcp", "udp")
_NO_CLOCK = ("mpjpeg", "mjpeg", "image2")  # formats without times, for which FFmpeg invents some
_BURSTS = ("hls", "dash")
_DISCARDED = getattr(getattr(av.stream, "Discard", None), "all", None)  # None before PyAV 18


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    """As `live.Connecting`. The end #udp of an RTSP address selects UDP, and #tcp excludes it."""
    address, _, transport = checked(url).partition("#")
    scheme = address.partition(":")[0].lower().removesuffix("s")
    options = {"protocol_whitelist": NETWORK, **_OPTIONS[scheme]}
    options[_TIMEOUT[scheme]] = str(round(patience.silence * 1e6))
    if scheme == "rtsp":
        if transport not in ("", *_TRANSPORTS):
            raise SourceError(f"{redact(url)}: it ends in neither #tcp nor #udp. RTSP travels over one of them.")
        return _Rtsp(address, options, transport, near)
    return lambda: StreamSession(address, options, near=near)


probe, open = live_source(_connecting)


class _Rtsp:
    """Connects over TCP, which loses no packets. If the camera refuses TCP, it changes to UDP for good."""

    def __init__(self, address: str, options: dict[str, str], asked: str, near: tuple[int, int]) -> None:
        """asked: the transport named in the address; "": none"""
        self._address, self._options, self._asked, self._near = address, options, asked, near
        self._transport = asked or "tcp"

    def __call__(self) -> "StreamSession":
        try:
            return self._over(self._transport)
        except (av.error.FFmpegError, OSError) as error:
            if self._asked or self._transport == "udp" or not _refuses_transport(error):
                if error.errno == errno.EPROTONOSUPPORT:
                    other = next(name for name in _TRANSPORTS if name != self._transport)
                    why = f"it does not send over {self._transport.upper()}"
                    raise Broken(Fault.UNABLE, why, f"Let the address end in #{other}, or in neither.") from None
                raise
            return self._over_udp(error)

    def _over_udp(self, refusal: Exception) -> "StreamSession":
        try:
            session = self._over("udp")
        except (av.error.FFmpegError, OSError, Broken) as error:
            if not _refuses_transport(error):
                refused = broken(error)
                why = f"it does not send over TCP, and over UDP: {refused}"
                raise Broken(refused.fault, why, "Check that a firewall lets UDP in.") from None
            raise refusal from None
        self._transport = "udp"
        notes = "the camera refuses RTSP over TCP: received over UDP", session.nature.note
        session.nature = replace(session.nature, note="; ".join(filter(None, notes)))
        return session

    def _over(self, transport: str) -> "StreamSession":
        return StreamSession(self._address, {**self._options, "rtsp_transport": transport}, near=self._near)


def _refuses_transport(error: Exception) -> bool:
    """The camera refuses the transport. It answers 461, which FFmpeg reports as an unsupported protocol, or 406 or
    another code, or it answers with the other transport, which FFmpeg does not understand."""
    foreign = (av.error.HTTPOtherClientError, av.error.HTTPBadRequestError, av.error.InvalidDataError)
    return isinstance(error, foreign) or getattr(error, "errno", None) == errno.EPROTONOSUPPORT


def checked(url: str) -> str:
    """The address in FFmpeg's form. Raises SourceError for an address without a host."""
    scheme = url.partition(":")[0]
    if not url.startswith(f"{scheme}://"):  # the URL is not shown, since a password in it cannot be found
        raise SourceError(
            f"{scheme}: an address needs a host behind two slashes, as in rtsp://192.168.1.20:554/stream1."
        )
    try:
        url = for_ffmpeg(url)
    except ValueError as error:
        raise SourceError(f"{redact(url)}: {error}") from None
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named:
        raise SourceError(f"{redact(url)}: an address needs a host, as in rtsp://192.168.1.20:554/stream1.")
    return url


class StreamSession:
    """The session of a stream that FFmpeg's libraries receive."""

    def __init__(
        self,
        url: str,
        options: dict[str, str],
        format: str | None = None,
        *,
        clips: bool = False,
        near: tuple[int, int] = USUAL_SIZE,
    ) -> None:
        """Connect. Raises what FFmpeg raises, or Broken.

        clips  a stream of known duration is a clip
        near   if there are several video streams, the smallest of at least this (width, height) is taken
        """
        # FFmpeg's "nobuffer" would discard the data read for probing, and with them the first key frame. Keeping them
        # adds no delay, since the reader catches up.
        common = {"probesize": "1000000", "analyzeduration": "1000000"}
        with foreign():
            self._container = av.open(url, format=format, options={**common, **options}, **LENIENT)
        try:
            with foreign():
                self._begin(clips, near)
        except BaseException:
            self._container.close()
            raise

    def _begin(self, clips: bool, near: tuple[int, int]) -> None:
        stream, note = self._choose(near)
        # Frame threads would delay as many frames as there are threads: 103 ms instead of 36 were measured.
        stream.thread_type = "SLICE"
        stream.codec_context.thread_count = 2
        self._stream = stream
        self._fields = Deinterlacer(stream.codec_context)
        made_up = self._container.format.name.startswith(_NO_CLOCK)
        self._time_base = None if made_up else exact(stream.time_base)
        self._times: Times | None = None
        self._best = BestEffort()
        nature = replace(self._nature(stream, clips), note=note)
        self._sound = SoundPackets([] if made_up or nature.finite else self._choose_sound(stream))
        self.nature = replace(nature, sound=self._sound.description)
        # A clip is read on after damage. For a live stream an error ends the connection, which is then made again.
        passes_over = (av.error.InvalidDataError,) if self.nature.finite else ()
        self._demuxer = Demuxer(self._container, [stream, *self._sound.streams], passes_over)
        self._decoder = Decoder(stream)

    def _choose(self, near: tuple[int, int]) -> tuple[VideoStream, str]:
        """Choose the video stream to show, and discard the others. Returns it and a line for the user, "" if it was the
        only one."""
        streams = picture_streams(self._container)
        if not streams:
            raise Broken(Fault.FOREIGN, "it holds no video stream that can be decoded")
        chosen = streams[nearest_above([(stream.width, stream.height) for stream in streams], near)]
        for stream in self._container.streams.video:
            if stream is not chosen and _DISCARDED is not None:
                stream.discard = _DISCARDED
        what = f"the picture of {chosen.width}x{chosen.height} is taken of {len(streams)}"
        return chosen, what if len(streams) > 1 else ""

    def _choose_sound(self, picture: VideoStream) -> list[Any]:
        """The sound streams for the picture: all; of a stream in variants, the one of the chosen variant."""
        held: Any = self._container.streams.audio
        if len(picture_streams(self._container)) < 2:
            return list(held)
        related = self._container.streams.best("audio", related=picture)
        for stream in held:
            if stream is not related and _DISCARDED is not None:
                stream.discard = _DISCARDED
        return [] if related is None else [related]

    def pictures(self) -> Iterator[ReceivedPicture | str | None]:
        """Yield pictures in presentation order, and lines for the user: about jumps of the sender's clock, and at the
        end of a clip about damage."""
        with foreign():
            if self.nature.finite and self._container.streams.audio:
                yield "the sound of a clip over HTTP is left out: download the file to keep it"
            for packet in self._demuxer:
                if self._sound.takes(packet):
                    yield None
                    continue
                frames = [done for frame in self._decoder(packet) for done in self._fields(frame)]
                yield from map(self._picture, frames)
                if not frames:
                    yield None
                if not self.nature.finite and (line := self._demuxer.news()):
                    yield line
            if self.nature.finite:  # the last frames of decoder and filters
                kept = [*self._decoder(None), None]
                yield from map(self._picture, [done for frame in kept for done in self._fields(frame)])
                yield from self._remarks()

    def interrupt(self) -> None:
        """Does nothing: PyAV cannot interrupt a read, which ends with FFmpeg's timeout."""

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _picture(self, frame: VideoFrame) -> ReceivedPicture:
        return ReceivedPicture(frame, self._sent_ns(frame), self._fields.note, self._sound.piece())

    def _remarks(self) -> Iterator[str]:
        lost = self._decoder.damaged + self._demuxer.errors
        if lost:
            yield f"{lost} pieces of it were damaged"
        if self._demuxer.mended:
            yield self._demuxer.mended

    def _sent_ns(self, frame: VideoFrame) -> int | None:
        if self._time_base is None:
            return None
        if not self.nature.finite:
            tick = self._best(frame.pts, frame.dts)
            return None if tick is None else round(tick * self._time_base * 10**9)
        if self._times is None:  # times of a clip are not mapped to another clock, so they are repaired here
            start = round(self._demuxer.start_of(self._stream) / self._time_base)
            self._times = Times(self._time_base, start, self.nature.rate)
        return self._times(frame.pts, frame.dts)

    def _nature(self, stream: VideoStream, clips: bool) -> Nature:
        names = self._container.format.name.split(",")
        clip = clips and bool(self._container.duration) and not set(names) & set(_NO_CLOCK)
        rate = plausible_rate(stream.average_rate, stream.guessed_rate, stream.base_rate)
        bursts = bool(set(names) & set(_BURSTS)) and not clip
        return Nature(rate, exact(stream.sample_aspect_ratio), bursts, clip)
