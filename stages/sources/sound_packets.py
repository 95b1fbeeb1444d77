"""Collecting the sound packets of a live source into pieces for the sinks.

A piece is a NUT file with a few packets. It has codec headers and exact times, so that it can be read without the
connection.
"""

import io
from collections.abc import Sequence
from typing import Any

import av
import av.error
from av.packet import Packet

_MOST = 2000  # most packets that wait for the next picture, some ten seconds

LONGEST_PIECE = 1 << 22
"""Largest size of a piece, bytes; a longer one is dropped."""


class SoundPackets:
    """Collects the sound packets of one connection until its next picture. One thread at a time.

    streams      the sound streams that can be written as NUT
    description  a piece without sound, which has codecs, rates and channels; empty without a stream
    """

    def __init__(self, streams: Sequence[Any]) -> None:
        self.streams = [stream for stream in streams if _is_known(stream)]
        self._waiting: list[Packet[Any]] = []
        self.description = b""
        if self.streams:
            try:
                self.description = self._piece([_silent(stream) for stream in self.streams])
            except (av.error.FFmpegError, ValueError):  # a codec that NUT does not support
                self.streams = []

    def takes(self, packet: "Packet[Any]") -> bool:
        """Take a packet if it is of a sound stream. True: it is."""
        if not any(packet.stream_index == stream.index for stream in self.streams):
            return False
        if packet.size and not (packet.pts is None and packet.dts is None) and len(self._waiting) < _MOST:
            self._waiting.append(packet)
        return True

    def piece(self) -> bytes:
        """The packets since the last call, as a NUT file; empty without any."""
        packets, self._waiting = self._waiting, []
        if not packets:
            return b""
        try:
            piece = self._piece(packets)
        except (av.error.FFmpegError, ValueError):  # decreasing times, from damage
            return b""
        return piece if len(piece) <= LONGEST_PIECE else b""

    def _piece(self, packets: "Sequence[Packet[Any]]") -> bytes:
        held = io.BytesIO()
        with av.open(held, "w", format="nut", container_options={"fflags": "+bitexact"}) as out:
            made: dict[int, Any] = {stream.index: out.add_stream_from_template(stream) for stream in self.streams}
            for stream in self.streams:
                made[stream.index].metadata.update(stream.metadata)
            for packet in packets:
                packet.stream = made[packet.stream_index]
                out.mux(packet)
        return held.getvalue()


def _is_known(stream: Any) -> bool:
    context = stream.codec_context
    return context is not None and bool(context.sample_rate) and bool(context.layout.nb_channels)


def _silent(stream: Any) -> "Packet[Any]":
    """A meaningless packet, since a NUT file without packets cannot be opened."""
    packet: Any = Packet(bytes(8))
    packet.stream, packet.time_base = stream, stream.time_base
    packet.pts = packet.dts = 0
    made: Packet[Any] = packet
    return made
