"""Sound of a live source for a stream: decoded as it comes, and encoded as AAC beside the pictures that are sent."""

import threading
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from warpfuse.stages.frame import SoundPiece
from warpfuse.stages.sinks.live_sound import coding_of, open_piece
from warpfuse.stages.sources.container import exact, met

RATE = 48_000
"""Samples a second, in the buffer and in the stream."""

_KEPT = 15 * RATE  # more than the longest `sound_delay` and the time that the networks take
_SLACK = RATE // 50  # times of a container are rounded, to a millisecond in FLV; sound that goes on is not cut for that
_BLOCK = 1024  # samples in a packet of AAC
_AT_FIRST = 5 * _BLOCK  # at the begin, at least these go with the first picture, else the muxer keeps it back
_AHEAD = RATE // 5  # sound that has come before its picture goes this far ahead, for the same reason
_PATIENCE = 3 * RATE // 10  # sound that is later than its picture by this is missing, and silence takes its place
_MOST_PATIENCE = 2 * RATE
_GAP = 12 * RATE  # after a longer break of the pictures, the sound of that time is not sent any more
_KBPS_A_CHANNEL = 80


class SoundBuffer:
    """The last seconds of sound, decoded, at 48 kHz. Sample N is at N/48000 s by the clock of the frames. Thread-safe.

    channels  1 or 2
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._samples = np.zeros((channels, _KEPT), np.float32)
        self._lock = threading.Lock()
        self._end = 0
        self._fresh: int | None = None
        self._empty = True

    def put(self, first: int, samples: npt.NDArray[np.float32]) -> None:
        """Keep samples, float32 [channels, n], from sample `first` on, over those that are there.

        They are clipped to -1..1, and what is no number is silent, since an encoder fails by it. Times that go far back
        are believed, since those before may have been wrong; then what was kept is forgotten.
        """
        samples = np.nan_to_num(samples, nan=0.0).clip(-1.0, 1.0)
        over = first + samples.shape[1]
        with self._lock:
            if self._empty or over <= self._end - _KEPT:
                self._samples[:] = 0.0
                self._end, self._empty = first, False
            self._samples[:, _places(max(self._end, first - _KEPT), first)] = 0.0
            self._samples[:, _places(first, over)] = samples
            self._end = max(self._end, over)
            self._fresh = first if self._fresh is None else min(first, self._fresh)

    def read(self, first: int, count: int) -> npt.NDArray[np.float32]:
        """A copy of samples, float32 [channels, count]. It is silent where there is no sound, or no longer."""
        read = np.zeros((self.channels, count), np.float32)
        with self._lock:
            begin = min(max(first, self._end - _KEPT), first + count)
            over = max(min(first + count, self._end), begin)
            read[:, begin - first : over - first] = self._samples[:, _places(begin, over)]
        return read

    @property
    def end(self) -> int:
        """The sample behind the latest one."""
        with self._lock:
            return self._end

    def fresh(self) -> int | None:
        """The earliest sample put since the last call. None: nothing was put."""
        with self._lock:
            fresh, self._fresh = self._fresh, None
            return fresh


class StreamSound:
    """Decodes the first sound track of a live source into a buffer.

    It goes on behind a connection that codes its sound otherwise. One thread at a time.

    buffer  None: the sound cannot be decoded, and the notes say so
    """

    def __init__(self, description: bytes, notes: list[str]) -> None:
        """description: `VideoInfo.sound`."""
        self._notes = notes
        self._decoding = open_piece(description)
        self._resampler: AudioResampler | None = None
        self._form: tuple[Any, ...] = ()
        self._shift: int | None = None
        self._next: int | None = None
        self.buffer: SoundBuffer | None = None
        tracks = self._decoding.streams.audio
        if len(tracks) > 1:
            notes.append(f"the first sound track is sent, not the other {len(tracks) - 1}")
        context: Any = tracks[0].codec_context
        try:
            av.Codec(context.name, "r")
            self.buffer = SoundBuffer(1 if context.layout.nb_channels == 1 else 2)
        except Exception as error:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors: sources/container.py)
            notes.append(f"the sound, {context.name}, is not sent ({met(error)})")

    def hear(self, piece: SoundPiece) -> None:
        """Decode a piece. A damaged one is left out."""
        if self.buffer is None:
            return
        if piece.stamp.pts_ns != self._shift:  # the delay was changed, or the source has another clock
            self._shift, self._next = piece.stamp.pts_ns, None
        try:
            self._decode(open_piece(piece.nut.tobytes()))
        except Exception as error:  # noqa: BLE001  (faulty sound must not end the picture)
            line = "a piece of the sound was damaged"
            if not any(note.startswith(line) for note in self._notes):
                self._notes.append(f"{line} ({met(error)})")

    def close(self) -> None:
        """Close the decoder."""
        self._decoding.close()

    def _decode(self, held: InputContainer) -> None:
        track = held.streams.audio[0]
        kept = self._decoding
        if coding_of(track) != coding_of(kept.streams.audio[0]):
            kept, self._decoding = held, held  # its decoder is used from here on
        decoder: Any = kept.streams.audio[0].codec_context
        try:
            for packet in held.demux(track):
                for frame in decoder.decode(packet) if packet.size else ():
                    self._resample(frame)
        finally:
            if held is not self._decoding:
                held.close()

    def _resample(self, frame: AudioFrame) -> None:
        assert self.buffer is not None
        if frame.pts is None or self._shift is None:
            return
        at = Fraction(frame.pts) * (exact(frame.time_base) or Fraction(1)) + Fraction(self._shift, 10**9)
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if self._resampler is None or form != self._form:
            layout = "mono" if self.buffer.channels == 1 else "stereo"
            self._resampler, self._form, self._next = AudioResampler("fltp", layout, RATE), form, None
        first = round(at * RATE)
        if self._next is None or abs(first - self._next) > _SLACK:
            self._next = first
        for piece in self._resampler.resample(frame):
            self.buffer.put(self._next, piece.to_ndarray().astype(np.float32, copy=False))
            self._next += piece.samples


class SoundEncoder:
    """The sound of one connection of a stream, beside its pictures, in AAC. One thread at a time.

    The sound of a picture's time is sent with this picture, so it leaves as late as the networks make the picture.
    Sound that comes later than its picture is sent when it comes. If none comes within the patience, silence is sent.
    Sound that comes later still is lost, and the patience grows to its delay (a `sound_delay` below zero), up to a
    limit.
    """

    def __init__(self, out: OutputContainer, heard: SoundBuffer) -> None:
        """out: the container, to which a track is added."""
        self._heard = heard
        self._stream: Any = out.add_stream("aac", rate=RATE)
        self._stream.codec_context.layout = "mono" if heard.channels == 1 else "stereo"
        self._stream.codec_context.bit_rate = 1000 * _KBPS_A_CHANNEL * heard.channels
        self._next = _BLOCK  # the encoder puts one block of silence before the first
        self._patience = _PATIENCE
        heard.fresh()

    def advance(self, at_ns: int, pts_ns: int) -> "list[Packet[Any]]":
        """The packets to send with a picture.

        at_ns   time of the picture since the connection began
        pts_ns  its time by the clock of the frames
        """
        at = _samples(at_ns)
        shift = _samples(pts_ns) - at
        self._learn_patience(at, shift)
        until = max(min(self._heard.end - shift, at + _AHEAD), at - self._patience, _AT_FIRST)
        if until - self._next > _GAP:
            self._next = until - _AT_FIRST
        packets: list[Packet[Any]] = []
        while self._next + _BLOCK <= until:
            frame = AudioFrame.from_ndarray(
                self._heard.read(self._next + shift, _BLOCK), "fltp", self._stream.codec_context.layout.name
            )
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self._next
            packets += self._stream.encode(frame)
            self._next += _BLOCK
        return packets

    def flush(self) -> "list[Packet[Any]]":
        """The last packets."""
        return list(self._stream.encode(None))

    def _learn_patience(self, at: int, shift: int) -> None:
        fresh = self._heard.fresh()
        if fresh is not None and fresh < self._next + shift:  # silence has taken its place
            needed = at + shift - fresh + _PATIENCE
            self._patience = max(self._patience, min(needed, _MOST_PATIENCE))


def _places(first: int, over: int) -> npt.NDArray[np.intp]:
    return np.arange(first, over) % _KEPT


def _samples(time_ns: int) -> int:
    return time_ns * RATE // 10**9
