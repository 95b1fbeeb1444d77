"""The sound of a live source on its way to those who keep it: packets as they came, with what it takes to decode them.

It travels as NUT, a few packets at a time: codec headers and exact times go with them, so that whoever gets a piece
needs nothing else of the connection.
"""

import io
from collections.abc import Sequence
from typing import Any

import av
import av.error
from av.packet import Packet

_MOST = 2000  # packets that wait for the next picture: some ten seconds

LONGEST_PIECE = 1 << 22
"""Bytes of a piece; a longer one is not passed on."""


class SoundPackets:
    """Collects the packets of the sound of one connection until its next picture. One thread at a time.

    streams      those that can be described, and so be kept
    description  a piece that tells codecs, rates and channels, without sound; empty if there is no stream
    """

    def __init__(self, streams: Sequence[Any]) -> None:
        self.streams = [stream for stream in streams if _is_known(stream)]
        self._waiting: list[Packet[Any]] = []
        self.description = b""
        if self.streams:
            try:
                self.description = self._piece([_silent(stream) for stream in self.streams])
            except (av.error.FFmpegError, ValueError):  # of a kind that NUT does not know
                self.streams = []

    def takes(self, packet: "Packet[Any]") -> bool:
        """Whether the packet is one of sound; then it is kept."""
        if not any(packet.stream_index == stream.index for stream in self.streams):
            return False
        if packet.size and not (packet.pts is None and packet.dts is None) and len(self._waiting) < _MOST:
            self._waiting.append(packet)
        return True

    def piece(self) -> bytes:
        """What was collected since the last call, as NUT; empty if nothing was."""
        packets, self._waiting = self._waiting, []
        if not packets:
            return b""
        try:
            piece = self._piece(packets)
        except (av.error.FFmpegError, ValueError):  # times that run backwards: damage
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
    """A packet of no meaning: NUT without any cannot be opened."""
    packet: Any = Packet(bytes(8))
    packet.stream, packet.time_base = stream, stream.time_base
    packet.pts = packet.dts = 0
    made: Packet[Any] = packet
    return made
