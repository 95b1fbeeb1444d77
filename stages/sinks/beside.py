"""Content of a file other than picture, sound and subtitles: tags, chapters, covers, attached files, timecode.

It is copied into the written file if the container can hold it. Everything else is reported to the user. Muxers
silently drop some of what they accept, so the finished file is read to find that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sinks.encoder import Format
from warpfuse.stages.sources.container import exact, net, open_clip, picture_stream
from warpfuse.stages.sources.schemes import path_of
from warpfuse.stages.stage import VideoInfo

_OF_THE_WRITER = {
    "encoder", "software", "major_brand", "minor_version", "compatible_brands", "creation_time", "company_name",
    "product_name", "product_version", "duration", "timecode",
}  # fmt: skip
_OF_A_TRACK = ("language", "title")
_FLAGS = ~int(Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image)
_NO_LANGUAGE = ("und", "")
_OLDER_CODES = {
    "deu": "ger",
    "nld": "dut",
    "ell": "gre",
    "isl": "ice",
    "zho": "chi",
    "fre": "fra",
}  # QuickTime knows only these codes of the languages
_CHAPTER_TITLES = "bin_data"  # FFmpeg's name of the track with QuickTime's chapter titles
_COVERS = {"mjpeg": ("jpg", "jpeg"), "png": ("png", "png"), "bmp": ("bmp", "bmp")}
_TAGS_TOLD = 5
_SEEN_OR_HEARD = ("audio", "subtitle", "video")


@dataclass(slots=True)
class Wanted:
    """What the finished file has to contain.

    tracks    type, number, language and flags of each stream of sound or subtitles
    left_out  what the container cannot hold, in words for the user
    covers    packets to be written before all others
    """

    tags: set[str] = field(default_factory=set)
    chapters: int = 0
    timecode: str = ""
    tracks: list[tuple[str, int, str, int]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    covers: list[Any] = field(default_factory=list)

    def tell(self, made: Any, source: Any, fmt: Format) -> None:
        """Copy language, title and flags of a source's stream to the stream made from it."""
        made.metadata.update({key: value for key, value in source.metadata.items() if key in _OF_A_TRACK})
        if fmt.muxer == "mov" and (language := made.metadata.get("language")) in _OLDER_CODES:
            made.metadata["language"] = _OLDER_CODES[language]
        made.disposition = flags = int(source.disposition) & _FLAGS
        number = sum(kind == made.type for kind, *_ in self.tracks)
        self.tracks.append((made.type, number, made.metadata.get("language", ""), flags))

    def leave_out(self, stream: Any) -> None:
        """Record that a stream is not written."""
        self.left_out.append(_named(stream))

    def missing(self, path: Path) -> list[str]:
        """`left_out`, and what the finished file lacks although it was written to it."""
        try:
            with av.open(str(path)) as made:
                held = {key.casefold() for key in made.metadata}
                tags = sorted(key for key in self.tags if key.casefold() not in held)
                lost = [*self.left_out, *_tags(tags)]
                if len(made.chapters()) < self.chapters:
                    lost.append("chapters")
                if self.timecode and _timecode(made, *made.streams) != self.timecode:
                    lost.append(f"timecode {self.timecode}")
                for kind, number, language, flags in self.tracks:
                    lost += _changed([s for s in made.streams if s.type == kind][number], number, language, flags)
                return lost
        except (av.error.FFmpegError, ValueError, OSError, IndexError):
            return self.left_out  # an unreadable file is not reported here


def carry(source: InputContainer, out: OutputContainer, fmt: Format, origin: Fraction, end: Fraction | None) -> Wanted:
    """Copy the content of `source` beside picture, sound and subtitles into `out`, before its header is written.

    out     its first stream is the picture
    origin  time at which the picture starts, s by the source's clock; chapters count from there
    end     length of the written picture, s; None: unknown
    """
    wanted = Wanted()
    made: Any = out.streams[0]
    picture = picture_stream(source)
    tags = {key: value for key, value in source.metadata.items() if _is_content(key)}
    out.metadata.update(tags)
    wanted.tags = set(tags)
    if picture is not None:
        made.metadata.update({key: value for key, value in picture.metadata.items() if key in _OF_A_TRACK})
        made.disposition = int(picture.disposition) & _FLAGS
        wanted.timecode = _timecode(picture, source)
        if wanted.timecode:
            made.metadata["timecode"] = wanted.timecode
    chapters = _chapters(source, origin, end)
    if chapters:
        out.set_chapters(chapters)
        wanted.chapters = len(chapters)
    for stream in source.streams:
        if stream is not picture and stream.type not in ("audio", "subtitle"):
            try:
                _carry_stream(stream, out, fmt, wanted)
            except Exception:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors; the picture matters more)
                wanted.leave_out(stream)
    return wanted


def unheld(sound_from: str | None, info: VideoInfo) -> list[str]:
    """The content of a source beside its picture, in words, for a sink that takes pictures only. Empty if none."""
    if sound_from is None:
        return ["the sound"] if info.sound else []
    path = path_of(sound_from)
    try:
        with net(str(path)), open_clip(path) as source:
            picture = picture_stream(source)
            chapters = ["chapters"] if source.chapters() else []
            return [_named(s) for s in source.streams if s is not picture and s.type in _SEEN_OR_HEARD] + chapters
    except SourceError:
        return []  # the source reports it


def _carry_stream(stream: Any, out: OutputContainer, fmt: Format, wanted: Wanted) -> None:
    """Copy a cover or an attached file, or leave it out. Timecode and chapter titles need no stream of their own."""
    titles = wanted.chapters and stream.type == "data" and stream.name == _CHAPTER_TITLES
    if titles or (stream.type == "data" and _timecode(stream)):
        return
    if stream.type == "video" and stream.disposition & Disposition.attached_pic and (fmt.covers or fmt.attachments):
        packet = next((p for p in stream.container.demux(stream) if p.size), None)
        if packet is not None and _add_cover(stream, packet, out, fmt, wanted):
            return
    if stream.type == "attachment" and fmt.attachments:
        made = out.add_attachment(stream.name or "attached", stream.mimetype or "application/octet-stream", stream.data)
        made.metadata.update(stream.metadata)
        return
    wanted.leave_out(stream)


def _add_cover(stream: Any, packet: "Packet[Any]", out: OutputContainer, fmt: Format, wanted: Wanted) -> bool:
    """Add a cover: an attached file called cover in Matroska, a stream of one picture in MP4. False: not possible."""
    codec = stream.codec_context.name
    if fmt.attachments:
        ending, kind = _COVERS.get(codec, (codec, codec))
        out.add_attachment(f"cover.{ending}", f"image/{kind}", bytes(packet))
        return True
    if codec not in _COVERS:
        return False
    made: Any = out.add_stream_from_template(stream)
    made.disposition = int(Disposition.attached_pic)
    packet.stream = made
    packet.pts = packet.dts = 0
    wanted.covers.append(packet)
    return True


def _chapters(source: InputContainer, origin: Fraction, end: Fraction | None) -> list[Any]:
    """The chapters that lie in the written part, with times by its clock."""
    kept: list[Any] = []
    for chapter in source.chapters():
        tick = exact(chapter["time_base"]) or Fraction(1)
        start, stop = (Fraction(chapter[key]) * tick - origin for key in ("start", "end"))
        start, stop = max(start, Fraction(0)), stop if end is None else min(stop, end)
        if stop <= start:
            continue
        times = {"start": round(start / tick), "end": round(stop / tick), "time_base": tick}
        kept.append({**chapter, **times})
    return kept


def _timecode(*held: Any) -> str:
    """The first timecode in the tags of these containers or streams. Matroska has tag names in capitals."""
    tags = (item for thing in held for item in thing.metadata.items())
    return next((value for key, value in tags if key.casefold() == "timecode"), "")


def _is_content(key: str) -> bool:
    return key.casefold() not in _OF_THE_WRITER and not key.startswith("_")


def _named(stream: Any) -> str:
    context = stream.codec_context
    codec = context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown kind"
    language = stream.metadata.get("language", "")
    about = ", ".join(filter(None, (codec, "" if language in _NO_LANGUAGE else language)))
    if stream.type == "video":
        return f"a cover ({about})" if stream.disposition & Disposition.attached_pic else f"a second picture ({about})"
    if stream.type == "attachment":
        return f"the attached file {stream.name or ''}".rstrip()
    return {"subtitle": f"subtitles ({about})", "audio": f"a sound track ({about})"}.get(stream.type, f"data ({about})")


def _tags(keys: Iterable[str]) -> list[str]:
    listed = list(keys)
    more = f" and {len(listed) - _TAGS_TOLD} more" if len(listed) > _TAGS_TOLD else ""
    return [f"tags ({', '.join(listed[:_TAGS_TOLD])}{more})"] if listed else []


def _changed(made: Any, number: int, language: str, flags: int) -> list[str]:
    lost, name = [], f"{'sound track' if made.type == 'audio' else 'subtitle track'} {number + 1}"
    if language not in _NO_LANGUAGE and made.metadata.get("language") != language:
        lost.append(f"language {language} of {name}")
    gone = Disposition(flags & ~int(made.disposition))
    if gone:
        names = ", ".join(flag.name or "" for flag in Disposition if flag & gone)
        lost.append(f"flag {names} of {name}")
    return lost
