"""Copying subtitles from one container to another, or converting text subtitles to the other's format."""

from fractions import Fraction
from typing import Any

from av.container import OutputContainer
from av.packet import Packet

from warpfuse.stages.sinks.encoder import Format, holds
from warpfuse.stages.sources.container import exact


class SubtitleTrack:
    """One stream of subtitles. It is copied if the container can hold it; else text is converted. Pictures cannot be.

    made  the stream in the written container
    """

    def __init__(self, stream: Any, out: OutputContainer, fmt: Format) -> None:
        """Raises ValueError for subtitles that can neither be copied nor converted, or what FFmpeg raises."""
        context = stream.codec_context
        self.index: int = stream.index
        self.name: str = context.codec.canonical_name
        self.copied = holds(fmt, stream)
        self.done = self.damaged = False
        if self.copied:
            self.made: Any = out.add_stream_from_template(stream)
        else:
            if not context.codec.text_sub:
                raise ValueError(f"{fmt.muxer} holds text alone")
            context.open(strict=False)  # the decoder sets subtitle_header when it is opened
            self.made = out.add_stream(fmt.subtitles)
            self.made.codec_context.subtitle_header = context.subtitle_header
            self.made.codec_context.time_base = Fraction(1, 1000)
        self._in = stream

    def packets(self, packet: Any, origin: Fraction) -> "list[Packet[Any]]":
        """The packets to mux for a packet of the source, with times that count from `origin`, s.

        Subtitles that begin before `origin` are shown from the beginning.
        """
        base = exact(packet.time_base) or Fraction(1)
        start = (packet.dts if packet.pts is None else packet.pts) - round(origin / base)
        length = packet.duration or 0
        made = packet
        if not self.copied:
            held = self._in.codec_context.decode2(packet)
            if held is None or not len(held):
                return []
            made = self.made.codec_context.encode_subtitle(held)
            made.time_base = base
        made.pts = made.dts = max(0, start)
        made.duration = max(0, length + min(0, start))
        made.stream = self.made
        return [made]

    def flush(self) -> "list[Packet[Any]]":
        """Always empty: subtitles are not delayed."""
        return []
