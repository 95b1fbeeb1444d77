"""Writing the sound of a live source into the file of its pictures."""

import io
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer, OutputContainer

from warpfuse.stages.frame import SoundPiece
from warpfuse.stages.sinks.encoder import Format
from warpfuse.stages.sinks.sound import SoundTrack, mux
from warpfuse.stages.sources.container import exact, met

_WAITING = 20_000  # most packets that wait for their picture, which is minutes of sound
_AT_ONCE = {"probesize": "32", "analyzeduration": "0"}  # the header of a NUT piece is enough to open it


class LiveSound:
    """The sound tracks of one live source.

    After a reconnection the sound may be coded differently from the description. It is then left out, and the notes say
    so. The notes also have the number of pieces lost between the processes.
    """

    def __init__(self, description: bytes, out: OutputContainer, fmt: Format, notes: list[str]) -> None:
        """description: `VideoInfo.sound`."""
        self._notes, self._out = notes, out
        self._described: InputContainer = open_piece(description)
        self._tracks: dict[int, SoundTrack] = {}
        self._codings: dict[int, tuple[Any, ...]] = {}
        self._can_lead = fmt.negative_times
        self._pieces: deque[SoundPiece] = deque()
        self._packets: deque[tuple[Fraction, Any]] = deque(maxlen=_WAITING)
        self._expected = self._lost_pieces = 0
        self._begin = Fraction(0)
        held: Any = self._described.streams.audio
        for stream in held:
            try:
                track = SoundTrack(stream, out, fmt)
            except Exception as error:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors: sources/container.py)
                notes.append(f"a sound track of {stream.codec_context.name} was left out ({met(error)})")
                continue
            track.made.metadata.update(stream.metadata)
            if not track.copied:
                notes.append(f"sound was transcoded from {track.name} to {fmt.sound}: {fmt.muxer} cannot hold it")
            self._tracks[stream.index] = track
            self._codings[stream.index] = coding_of(stream)

    def hear(self, piece: SoundPiece) -> None:
        """Keep a piece until its pictures are written."""
        number = piece.stamp.seq
        self._lost_pieces += max(0, number - self._expected) if self._expected else 0
        self._expected = number + 1  # a source that was started again counts from 0
        self._pieces.append(piece)

    def begin(self, at: Fraction) -> None:
        """Set the time of the first picture, s by the picture's clock. Sound before it is left out."""
        self._begin, self._lost_pieces = at, 0

    def advance(self, until: Fraction) -> None:
        """Mux the packets that start before `until`, s by the picture's clock. Raises what mux() raises."""
        while self._pieces:
            self._unpack(self._pieces.popleft())
        while self._packets and self._packets[0][0] < until:
            start, packet = self._packets.popleft()
            if start >= self._begin:
                self._mux(packet, start)

    def finish(self, end: Fraction) -> None:
        """Mux the packets that start before `end`, and flush the encoders."""
        self.advance(end)
        for track in self._tracks.values():
            mux(self._out, track.flush())
        if self._lost_pieces:
            self._notes.append(
                f"sound: {self._lost_pieces} pieces of it, one a picture, were lost on the way to the file"
            )

    def left_out(self, path: Path) -> str | None:
        """None: everything left out is in the notes already."""

    def close(self) -> None:
        """Close the tracks."""
        for track in self._tracks.values():
            track.close()
        self._described.close()

    def _unpack(self, piece: SoundPiece) -> None:
        shift = Fraction(piece.stamp.pts_ns, 10**9)
        try:
            with open_piece(piece.nut.tobytes()) as held:
                known = {s.index for s in held.streams.audio if coding_of(s) == self._codings.get(s.index)}
                if len(known) < len(self._tracks):
                    self._tell("another connection codes the sound otherwise: it was left out from there on")
                for packet in held.demux():
                    if packet.size and packet.stream_index in known:
                        self._place(packet, shift)
        except Exception as error:  # noqa: BLE001  (faulty sound must not end the picture)
            self._tell(f"a piece of the sound was damaged ({met(error)})")

    def _place(self, packet: Any, shift: Fraction) -> None:
        """Shift the times of a packet to the clock of the frames, and queue it."""
        tick = exact(packet.time_base) or Fraction(1)
        ticks = round(shift / tick)
        if packet.pts is not None:
            packet.pts += ticks
        if packet.dts is not None:
            packet.dts += ticks
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            self._packets.append((stamp * tick, packet))

    def _mux(self, packet: Any, start: Fraction) -> None:
        track = self._tracks[packet.stream_index]
        try:
            made = track.packets(packet, Fraction(0))
        except Exception as error:  # noqa: BLE001  (faulty sound must not end the picture)
            self._tell(f"{track.name} sound is damaged from {float(start):.1f} s on ({met(error)})")
            return
        if (why := mux(self._out, made)) is not None:
            self._tell(f"{track.name} sound is damaged from {float(start):.1f} s on ({why})")

    def _tell(self, line: str) -> None:
        if not any(note.split(" from ")[0] == line.split(" from ")[0] for note in self._notes):
            self._notes.append(line)


def open_piece(nut: bytes) -> InputContainer:
    """Open a piece of sound, or a description of one. The caller closes it."""
    return av.open(io.BytesIO(nut), "r", format="nut", options=_AT_ONCE)


def coding_of(stream: Any) -> tuple[Any, ...]:
    """What has to be the same for one decoder to take the packets of two connections."""
    context = stream.codec_context
    return context.name, context.sample_rate, context.layout.nb_channels
