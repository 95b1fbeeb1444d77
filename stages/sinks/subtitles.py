"""Subtitles on their way from one container to another: copied, or text made into the kind the container holds."""

from fractions import Fraction
from typing import Any

from av.container import OutputContainer
from av.packet import Packet

from warpfuse.stages.sinks.encoder import Format, holds
from warpfuse.stages.sources.container import exact


class SubtitleTrack:
    """One stream of subtitles. Copied if the container can hold it; else text is converted, pictures cannot be.

    made  the stream of the container that is written
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
            context.open(strict=False)  # a decoder has its header from then on
            self.made = out.add_stream(fmt.subtitles)
            self.made.codec_context.subtitle_header = context.subtitle_header
            self.made.codec_context.time_base = Fraction(1, 1000)
        self._in = stream

    def packets(self, packet: Any, origin: Fraction) -> "list[Packet[Any]]":
        """What to mux for a packet of the file, its times now counted from `origin` seconds.

        What begins before is shown from the beginning on."""
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
        """Nothing is held back."""
        return []
