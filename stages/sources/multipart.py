"""Pictures that a camera sends as parts of one HTTP answer (multipart/x-mixed-replace), parsed as browsers do.

FFmpeg's demuxer requires parts that follow the standard. Cheap cameras send parts without a Content-Type or with a
wrong Content-Length, a boundary with other dashes than announced, or no boundary before the first picture. Browsers
look at the boundary only. Here a JPEG also ends at its end marker, so that no picture waits for the next one.
"""

from collections.abc import Iterator
from typing import Any

import av
import av.error
from av.packet import Packet
from av.video.frame import VideoFrame

from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.session import Nature, ReceivedPicture, plausible_rate
from warpfuse.stages.sources.web_request import Answer

_MOST = 1 << 26  # most bytes of a picture, and between pictures
_READ = 1 << 16
_MAGIC = {b"\xff\xd8": "mjpeg", b"\x89PNG\r\n": "png", b"BM": "bmp", b"RIFF": "webp"}
"""First bytes of pictures -> FFmpeg's decoder."""

JPEG = b"\xff\xd8"
_END, _SCAN = 0xD9, 0xDA
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


class Parts:
    """Splits a multipart stream into pictures. It does no I/O."""

    def __init__(self, boundary: str) -> None:
        """boundary: from the answer's header; empty: the first line of the body."""
        self._boundary = boundary.strip().strip("-").encode("latin-1", "replace")
        self._held = b""
        self._inside = False

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes. Returns the pictures that are complete now. Raises ValueError when a picture is too long."""
        self._held += data
        pictures: list[bytes] = []
        while self._picture(pictures) if self._inside else self._enter():
            pass
        if len(self._held) > _MOST:
            raise ValueError(f"more than {_MOST >> 20} MiB without the end of a picture")
        return pictures

    def rest(self) -> list[bytes]:
        """The last picture, which ends with the stream, if there is one."""
        held, self._held = self._held, b""
        return [held] if self._inside and held else []

    def _enter(self) -> bool:
        """Skip boundary, header and line ends before a picture. False: more bytes are needed."""
        self._held = self._held.lstrip(b"\r\n")
        if codec_of(self._held):
            self._inside = True
            return True
        if not self._boundary and self._held.startswith(b"--"):
            line, end, _ = self._held.partition(b"\n")
            if not end:
                return False
            self._boundary = line.strip().strip(b"-")
        # Take whichever comes first. Bytes before a boundary or a JPEG are padding, or the header of a truncated part.
        mark = self._mark(0)
        blanks = [at + len(blank) for blank in (b"\r\n\r\n", b"\n\n") if (at := self._held.find(blank)) >= 0]
        jpeg = self._held.find(JPEG + b"\xff")
        ways = [(at, True) for at in blanks] + ([(jpeg, True)] if jpeg >= 0 else [])
        if mark is not None and all(mark[0] < at for at, _ in ways):
            ways = [(mark[1], False)]
        if not ways:
            return False
        start, self._inside = min(ways)
        self._held = self._held[start:]
        return True

    def _picture(self, pictures: list[bytes]) -> bool:
        end, mark = jpeg_end(self._held), self._mark(0)
        if mark is not None and (end is None or mark[0] <= end):
            body = self._held[: mark[0]]
            self._held = self._held[mark[1] :]
        elif end is not None:
            body, self._held = self._held[:end], self._held[end:]
        else:
            return False
        self._inside = False
        if body:
            pictures.append(body)
        return True

    def _mark(self, start: int) -> tuple[int, int] | None:
        """Begin of the next boundary, including the line end before it, and end of its line; None without one."""
        while self._boundary and (at := self._held.find(self._boundary, start)) >= 0:
            end = self._held.find(b"\n", at)
            if end < 0:
                return None
            begin = at
            while begin > 0 and self._held[begin - 1 : begin] == b"-":
                begin -= 1
            alone = not self._held[at + len(self._boundary) : end].strip(b"- \t\r")
            if alone and (at - begin >= 2 or begin == 0 or self._held[begin - 1 : begin] == b"\n"):
                before = self._held[:begin]
                return len(before.removesuffix(b"\n").removesuffix(b"\r")), end + 1
            start = at + 1
        return None


def codec_of(data: bytes) -> str:
    """FFmpeg's decoder for a picture with these first bytes; "" if they are of no known kind."""
    return next((codec for magic, codec in _MAGIC.items() if data.startswith(magic)), "")


def jpeg_end(data: bytes) -> int | None:
    """Length of the JPEG at the start of these bytes; None: it is no JPEG, or not complete yet.

    Segments are skipped by their lengths, since a segment may contain a preview, which is a JPEG itself.
    """
    if not data.startswith(JPEG):
        return None
    at = len(JPEG)
    while at + 3 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == _END:
            return at + 2
        elif marker in _BARE:
            at += 2
        elif marker == _SCAN:
            end = data.find(bytes((0xFF, _END)), at)
            return end + 2 if end >= 0 else None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return at + 2 if data[at : at + 2] == bytes((0xFF, _END)) else None


class Decoders:
    """Decodes complete pictures, each independently."""

    def __init__(self) -> None:
        self._contexts: dict[str, Any] = {}  # PyAV's type for contexts lacks `decode`

    def __call__(self, data: bytes) -> VideoFrame | None:
        """The picture; None if it cannot be decoded."""
        name = codec_of(data)
        if not name:
            return None
        if name not in self._contexts:
            self._contexts[name] = av.CodecContext.create(name, "r")
            self._contexts[name].thread_count = 1  # threads would delay pictures
        try:
            frames = self._contexts[name].decode(Packet(data))
        except Exception:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors: container.py)
            return None
        return frames[-1] if frames and isinstance(frames[-1], VideoFrame) else None


class PartsSession:
    """The session of a multipart answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parts = Parts(answer.boundary)
        self._decode = Decoders()
        self.nature = Nature(plausible_rate())

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Yield pictures as they come; None for data that complete no picture."""
        while data := self._answer.read(_READ):
            yield from self._shown(data)
        yield from (ReceivedPicture(frame) for body in self._parts.rest() if (frame := self._decode(body)) is not None)
        raise Broken(Fault.ENDED, "the other side ended the stream")

    def _shown(self, data: bytes) -> Iterator[ReceivedPicture | None]:
        try:
            bodies = self._parts.feed(data)
        except ValueError as error:
            raise Broken(Fault.FOREIGN, f"it sends {error}") from None
        frames = [frame for body in bodies if (frame := self._decode(body)) is not None]
        yield from map(ReceivedPicture, frames)
        if not frames:
            yield None

    def interrupt(self) -> None:
        """Does nothing: a read ends with the timeout of its socket."""

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()
