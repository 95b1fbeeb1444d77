"""Pictures that a camera sends one behind the other over HTTP (multipart/x-mixed-replace), as browsers take them apart.

FFmpeg's own demuxer wants each part as the standard has it. Cheap cameras send parts without a Content-Type or with a
wrong Content-Length, a boundary with other dashes than they announce, or none before the first picture. Browsers go by
the boundary alone; here a JPEG also ends where it says it does, so that no picture waits for the next one.
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

_MOST = 1 << 26  # bytes of a picture, and of what is no picture
_READ = 1 << 16
_MAGIC = {b"\xff\xd8": "mjpeg", b"\x89PNG\r\n": "png", b"BM": "bmp", b"RIFF": "webp"}
"""How pictures begin, and FFmpeg's decoders of them."""

JPEG = b"\xff\xd8"
_END, _SCAN = 0xD9, 0xDA
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers that no length follows


class Parts:
    """Takes a multipart stream apart; does no I/O."""

    def __init__(self, boundary: str) -> None:
        """boundary: as the answer's head tells it; empty: what the first line of the body is."""
        self._boundary = boundary.strip().strip("-").encode("latin-1", "replace")
        self._held = b""
        self._inside = False

    def feed(self, data: bytes) -> list[bytes]:
        """The pictures that are whole with these bytes. Raises ValueError for what has no end."""
        self._held += data
        pictures: list[bytes] = []
        while self._picture(pictures) if self._inside else self._enter():
            pass
        if len(self._held) > _MOST:
            raise ValueError(f"more than {_MOST >> 20} MiB without the end of a picture")
        return pictures

    def rest(self) -> list[bytes]:
        """The picture that the end of the stream ends, if one is under way."""
        held, self._held = self._held, b""
        return [held] if self._inside and held else []

    def _enter(self) -> bool:
        """Pass over what stands before a picture: boundary, head, line ends. False: more bytes are needed."""
        self._held = self._held.lstrip(b"\r\n")
        if codec_of(self._held):
            self._inside = True
            return True
        if not self._boundary and self._held.startswith(b"--"):
            line, end, _ = self._held.partition(b"\n")
            if not end:
                return False
            self._boundary = line.strip().strip(b"-")
        # Whichever is first. What is before a boundary or a JPEG is padding, or the head of a part that breaks off.
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
        """Where the next boundary begins, its line end before it included, and where its line ends."""
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
    """FFmpeg's decoder of the picture that begins so; empty if it begins as none does."""
    return next((codec for magic, codec in _MAGIC.items() if data.startswith(magic)), "")


def jpeg_end(data: bytes) -> int | None:
    """The length of the JPEG that these bytes begin with; None: it is no JPEG, or not whole yet.

    Segments are passed over by their lengths, for there may be another JPEG, a small preview, in one."""
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
    """Decodes pictures that are whole, each for itself."""

    def __init__(self) -> None:
        self._contexts: dict[str, Any] = {}  # PyAV's, whose types know of no decoding

    def __call__(self, data: bytes) -> VideoFrame | None:
        """The picture; None if it cannot be decoded."""
        name = codec_of(data)
        if not name:
            return None
        if name not in self._contexts:
            self._contexts[name] = av.CodecContext.create(name, "r")
            self._contexts[name].thread_count = 1  # threads would keep pictures back
        try:
            frames = self._contexts[name].decode(Packet(data))
        except Exception:  # noqa: BLE001  (what lies in a picture makes FFmpeg's bindings raise more than its errors)
            return None
        return frames[-1] if frames and isinstance(frames[-1], VideoFrame) else None


class PartsSession:
    """A multipart answer, from its head until it breaks."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parts = Parts(answer.boundary)
        self._decode = Decoders()
        self.nature = Nature(plausible_rate())

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Pictures as they come; None for bytes that end none."""
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
        """A read ends with the timeout of its socket."""

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()
