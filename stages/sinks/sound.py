"""Copying sound and subtitles of a file, packet by packet, beside a picture that is being written."""

import errno
import os
from collections.abc import Generator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sinks.beside import carry
from warpfuse.stages.sinks.encoder import Format, holds
from warpfuse.stages.sinks.subtitles import SubtitleTrack
from warpfuse.stages.sources.container import Demuxer, exact, met, net, open_clip, picture_origin, picture_stream
from warpfuse.stages.sources.schemes import path_of

_LEAD = Fraction(1, 10)  # s of sound before the picture that are kept if they can be hidden: decoders need a run-up
_RATES = {"libopus": (48000,), "aac": (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)}

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS, errno.EPIPE, errno.EBADF)


class _Trial:
    """A second muxer of the same kind, without output, that tells of each packet whether it can be written.

    The real muxer delays packets to interleave them. It would refuse a bad packet later, while it writes a picture.
    """

    def __init__(self, stream: Any, fmt: Format) -> None:
        self._out = av.open(os.devnull, "w", format=fmt.muxer)
        self._made: Any = self._out.add_stream_from_template(stream)

    def __call__(self, packet: "Packet[Any]") -> None:
        """Try a packet. Raises what the muxer raises."""
        packet.stream = self._made
        self._out.mux(packet)

    def close(self) -> None:
        """Close the muxer."""
        with suppress(Exception):  # errors of the trial file as a whole do not matter
            self._out.close()


class SoundTrack:
    """One stream of sound, copied from one container to another, or transcoded if the other cannot hold it.

    made  the stream in the written container
    """

    def __init__(self, stream: Any, out: OutputContainer, fmt: Format) -> None:
        self.index: int = stream.index
        self.name: str = stream.codec_context.name
        self.copied = holds(fmt, stream)
        self.done = self.damaged = False
        self._last_dts: int | None = None
        self._over = Fraction(-(1 << 62))  # end of the encoded sound, ticks
        self._trial = _Trial(stream, fmt) if self.copied else None
        self._bare: BitStreamFilterContext | None = None
        if self.copied:
            self.made: Any = out.add_stream_from_template(stream)
            if self.name == "aac" and fmt.negative_times and not stream.codec_context.extradata:
                # MP4 has no place for a transport stream's frame headers. Its muxer removes them by itself, but not in
                # fragments.
                self._bare = BitStreamFilterContext("aac_adtstoasc", stream)
        else:
            rates = _RATES[fmt.sound]
            rate = stream.codec_context.sample_rate
            channels = stream.codec_context.layout.nb_channels  # may raise, so before the stream is added
            self.made = out.add_stream(fmt.sound, rate=rate if rate in rates else rates[0])
            self.made.codec_context.layout = "mono" if channels == 1 else "stereo"
            self.made.codec_context.bit_rate = 96_000 * min(channels, 2)
        self._in = stream

    def packets(self, packet: Any, origin: Fraction) -> "list[Packet[Any]]":
        """The packets to mux for a packet of the source, with times that count from `origin`, s."""
        shift = round(origin / _base(packet))
        if packet.dts is not None:
            if self._last_dts is not None and packet.dts <= self._last_dts:
                return []  # overlapping parts or damage; muxers refuse decreasing times
            self._last_dts = packet.dts
        if self._trial is None:
            return [made for frame in self._in.decode(packet) for made in self._encode(frame, shift)]
        if packet.dts is not None:
            packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        bare = [packet] if self._bare is None else list(self._bare.filter(packet))
        for made in bare:
            self._trial(made)
            made.stream = self.made
        return bare

    def close(self) -> None:
        """Close the trial muxer."""
        if self._trial is not None:
            self._trial.close()

    def flush(self) -> "list[Packet[Any]]":
        """The last packets of the encoder; none for a copied track."""
        if self.copied:
            return []
        try:
            return list(self.made.encode(None))
        except Exception:  # noqa: BLE001  (an encoder that got no frame was never opened)
            return []

    def _encode(self, frame: Any, shift: int) -> "list[Packet[Any]]":
        if frame.pts is not None:
            tick = exact(frame.time_base) or Fraction(1)
            length = Fraction(frame.samples, frame.sample_rate) / tick
            start = max(Fraction(frame.pts - shift), self._over)  # encoders refuse decreasing times
            if start - (frame.pts - shift) > length / 2:
                return []  # it overlaps the sound before it by more than half
            frame.pts, self._over = round(start), start + length
        return list(self.made.encode(frame))


class Sound:
    """The tracks of sound and subtitles of one file. They are read only as far as the picture has been written.

    Other content of the file is copied into `out` at once (`beside.py`). Errors of reading end the sound but not the
    picture, and are added to `notes`. Errors of writing are raised.
    """

    def __init__(
        self, url: str, out: OutputContainer, fmt: Format, notes: list[str], end: Fraction | None = None
    ) -> None:
        """end: length of the picture that will be written, s; None: unknown."""
        self._notes = notes
        self._out = out
        self._tracks: dict[int, SoundTrack | SubtitleTrack] = {}
        self._sounding: set[int] = set()
        self._container: InputContainer | None = None
        self._waiting: Any = None
        path = path_of(url)
        try:
            with net(str(path)):
                self._container = open_clip(path)
                origin = picture_origin(self._container, path)
                self._pictured = origin is not None
                self._origin = (self._container.start_time or 0) / Fraction(10**6) if origin is None else origin
        except SourceError as error:
            notes.append(f"no sound: {error}")
            return
        self._can_lead = fmt.negative_times  # else sound before the picture would delay the picture
        self._beside = carry(self._container, out, fmt, self._origin, end)
        streams: list[Any] = []
        held: Any = self._container.streams.audio
        for stream in held:
            if stream.codec_context is None:
                notes.append(f"a sound track was left out: its codec is unknown to this FFmpeg ({path})")
                continue
            try:
                track = SoundTrack(stream, out, fmt)
            except Exception as error:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors: sources/container.py)
                notes.append(f"a sound track of {stream.codec_context.name} was left out ({met(error)})")
                continue
            if not track.copied:
                self._note(f"sound was transcoded from {track.name} to {fmt.sound}: {fmt.muxer} cannot hold it")
            self._tracks[track.index] = track
            self._sounding.add(track.index)
            self._beside.tell(track.made, stream, fmt)
            streams.append(stream)
        streams += self._subtitles(out, fmt)
        if streams and not self._sounding and (picture := picture_stream(self._container)) is not None:
            streams.append(picture)  # shows how far the file has been read: subtitles alone have long gaps
        self._demuxer = Demuxer(self._container, streams)
        self._packets = self._read()

    def _subtitles(self, out: OutputContainer, fmt: Format) -> list[Any]:
        """Add the tracks of subtitles that `out` can hold, copied or converted. Returns their streams."""
        assert self._container is not None
        streams: list[Any] = []
        held: Any = self._container.streams.subtitles
        for stream in held:
            try:
                track = SubtitleTrack(stream, out, fmt)
            except Exception:  # noqa: BLE001  (an unknown kind, or pictures where the container needs text)
                self._beside.leave_out(stream)
                continue
            if not track.copied:
                self._note(f"subtitles were converted from {track.name} to {fmt.subtitles}: {fmt.muxer} cannot hold it")
            self._tracks[track.index] = track
            self._beside.tell(track.made, stream, fmt)
            streams.append(stream)
        return streams

    def _note(self, line: str) -> None:
        if line not in self._notes:  # one line, whatever the number of tracks
            self._notes.append(line)

    def advance(self, until: Fraction) -> None:
        """Mux the packets that start before `until`, s by the picture's clock. Raises what mux() raises."""
        if self._container is None:
            return
        while self._beside.covers:
            self._out.mux(self._beside.covers.pop(0))
        while self._tracks and not all(track.done for track in self._tracks.values()):
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                self._finish_tracks()
                return
            if self._start(packet) >= until:
                self._waiting = packet
                return
            self._mux(packet)

    def finish(self, end: Fraction) -> None:
        """Mux the packets that start before `end`, the end of the last picture, and flush the encoders."""
        live = {index for index in self._sounding or self._tracks if not self._tracks[index].done}
        while live:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                break
            if self._start(packet) >= end:
                live.discard(packet.stream_index)  # another track may lag behind in the file
                if packet.stream_index not in self._tracks:
                    break
            elif packet.stream_index in live or packet.stream_index not in self._sounding:
                self._mux(packet)
        self._finish_tracks()

    def left_out(self, path: Path) -> str | None:
        """A line for the user if the finished file at `path` lacks something that the source has; else None."""
        missing = [] if self._container is None else self._beside.missing(path)
        return f"left out, this kind of file cannot hold it: {'; '.join(missing)}" if missing else None

    def close(self) -> None:
        """Close the tracks and the source's file."""
        for track in self._tracks.values():
            if isinstance(track, SoundTrack):
                track.close()
        if self._container is not None:
            self._container.close()

    def _read(self) -> "Generator[Packet[Any], None, None]":
        for packet in self._demuxer:
            if packet.pts is not None or packet.dts is not None:
                yield packet
        if self._demuxer.errors:
            self._notes.append("the sound is damaged: what could be read of it was copied")
        if self._demuxer.mended and not self._pictured:  # else the source reports it
            self._notes.append(f"the sound: {self._demuxer.mended}")

    def _start(self, packet: Any) -> Fraction:
        stamp = packet.dts if packet.pts is None else packet.pts
        return Fraction(stamp) * _base(packet) - self._origin

    def _mux(self, packet: Any) -> None:
        track = self._tracks.get(packet.stream_index)
        if track is None:
            return  # a packet of the picture
        start = self._start(packet)
        over = start + (packet.duration or 0) * _base(packet)
        if isinstance(track, SubtitleTrack):
            if over <= 0:
                return  # it ends before the picture begins
        elif over < -_LEAD if self._can_lead else start < 0:
            return  # before the picture
        try:
            made = track.packets(packet, self._origin)
        except Exception as error:  # noqa: BLE001  (faulty sound must not end the picture)
            self._lost(track, start, met(error))
        else:
            self._put(track, made, start)

    def _put(self, track: SoundTrack | SubtitleTrack, made: "list[Packet[Any]]", start: Fraction) -> None:
        if (why := mux(self._out, made)) is not None:
            self._lost(track, start, why)

    def _lost(self, track: SoundTrack | SubtitleTrack, start: Fraction, why: str) -> None:
        if not track.damaged:
            kind = "sound is" if isinstance(track, SoundTrack) else "subtitles are"
            self._notes.append(f"{track.name} {kind} damaged from {max(0.0, float(start)):.1f} s on ({why})")
        track.damaged = True

    def _finish_tracks(self) -> None:
        for track in self._tracks.values():
            if not track.done:
                track.done = True
                self._put(track, track.flush(), Fraction(0))


def mux(out: OutputContainer, made: "list[Packet[Any]]") -> str | None:
    """Write packets. Returns why the muxer refuses one; None if it does not. Raises FFmpegError for disk errors."""
    try:
        out.mux(made)
    except av.error.FFmpegError as error:
        if error.errno in _OF_DISKS:
            raise
        return met(error)
    return None


def _base(packet: Any) -> Fraction:
    return exact(packet.time_base) or Fraction(1)
