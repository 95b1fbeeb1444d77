"""Interlaced video, two fields of different times in a frame, as whole frames: by FFmpeg's filters, one for one."""

from collections.abc import Generator
from fractions import Fraction
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

_TICK = Fraction(1, 1000)  # a frame in the graph's time; it carries its number there
_ORDERS = {2: "tff", 4: "tff", 3: "bff", 5: "bff"}  # AVFieldOrder, as FFmpeg's own decoders of raw video read it
_MPEG = {"h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "cavs"}
_FLAGGED = _MPEG | {"vc1", "wmv3", "dvvideo", "prores", "dnxhd"}  # codecs that tell of their fields themselves
_FILM = ("fieldmatch", {"order": "auto", "combmatch": "full"})
_LEAST = 16  # px a side: what is smaller has no fields
_MOVES = 1.0  # levels by which a field differs from the one before where something moves
_REPEATS = 0.2  # of what the other field differs by: a repeated field, coded anew
_CYCLE = 5  # frames of 3:2 pulldown that hold four of film


class Deinterlacer:
    """The frames of one decoder, deinterlaced where they are flagged as interlaced, else passed on as they are.

    A flag is believed, also where the two fields show the same moment; of a codec that has none, what the container
    says. Frames of a 3:2 pulldown are put together from the fields of one film frame, so that of five one comes twice.
    From the first interlaced frame on a frame comes when the next one is known.

    note  what was done, in words; None: nothing
    """

    def __init__(self, context: VideoCodecContext) -> None:
        order = getattr(context, "field_order", 0)  # PyAV 16 does not tell
        self._told = _ORDERS.get(order) if context.name not in _FLAGGED else None
        self._graph: _FieldGraph | None = None
        self._cadence = Cadence()
        self.note: str | None = None

    def all_of(self, frames: Generator[VideoFrame, None, None]) -> Generator[VideoFrame, None, None]:
        """Every frame, deinterlaced; `frames` is closed with it."""
        try:
            for frame in frames:
                yield from self(frame)
            yield from self(None)
        finally:
            frames.close()

    def __call__(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """The frames that are done when this one has come, in order; with None, the end, those still held."""
        if frame is None:
            return self._flushed()
        if self._graph is None and not frame.interlaced_frame and self._told is None:
            return [frame]
        if min(frame.width, frame.height) < _LEAST:
            return [*self._flushed(), frame]
        film = self._cadence(frame)
        done = []
        if self._graph is None or not self._graph.takes(frame, film):
            done = self._flushed()
            try:
                self._graph = _FieldGraph(frame, None if frame.interlaced_frame else self._told, film=film)
            except (av.error.FFmpegError, ValueError) as error:
                self.note = f"interlaced, shown as it is: FFmpeg's filters take no {frame.format.name} ({error})"
                return [*done, frame]
            self.note = self._graph.note
        return done + self._graph(frame)

    def _flushed(self) -> list[VideoFrame]:
        graph, self._graph = self._graph, None
        return graph(None) if graph is not None else []


class Cadence:
    """Finds 3:2 pulldown: of five frames one repeats the top field of the frame before, another the bottom one."""

    def __init__(self) -> None:
        self._before: npt.NDArray[np.int16] | None = None
        self._repeats: list[set[int]] = [set(), set()]  # numbers of frames that repeat the top, the bottom field
        self._count = 0
        self._found = False

    def __call__(self, frame: VideoFrame) -> bool:
        """Whether the video, up to this frame, is telecined. Once it is, it stays so."""
        if self._found:
            return True
        rows = _luma(frame)
        before, self._before = self._before, rows
        self._count += 1
        if before is not None and before.shape == rows.shape:
            top, bottom = (float(np.abs(rows[f::2] - before[f::2]).mean()) for f in (0, 1))
            if max(top, bottom) > _MOVES and min(top, bottom) < _REPEATS * max(top, bottom):
                self._repeats[bottom < top].add(self._count)
        tops, bottoms = self._repeats
        phases = [{number % _CYCLE for number in numbers} for numbers in self._repeats]
        regular = len(phases[0]) == len(phases[1]) == 1 and phases[0] != phases[1]
        self._found = regular and min(len(tops), len(bottoms)) >= 2
        return self._found


class _FieldGraph:
    """The filters for frames of one size and format."""

    def __init__(self, first: VideoFrame, told: str | None, *, film: bool) -> None:
        self.note = "telecined (3:2 pulldown), film frames put together again" if film else "interlaced, deinterlaced"
        self._kind = (_layout(first), film)
        self._times: dict[int, tuple[Any, Any, Any]] = {}
        self._count = 0
        # Where a decoder set no flags the container's word is put on every frame.
        steps: list[tuple[str, dict[str, str]]] = [("setfield", {"mode": told})] if told is not None else []
        steps += [_FILM] if film else []
        steps += [("bwdif", {"mode": "send_frame", "parity": "auto", "deint": "interlaced"}), ("buffersink", {})]
        self._graph = Graph()
        self._graph.threads = 2
        source = self._graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=_TICK)
        self._graph.link_nodes(source, *(self._graph.add(name, **options) for name, options in steps)).configure()

    def takes(self, frame: VideoFrame, film: bool) -> bool:
        """Whether the frame is of the kind that this was made for."""
        return self._kind == (_layout(frame), film)

    def __call__(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """The frames that are done, with their own times; None: the end."""
        if frame is not None:
            self._times[self._count] = frame.pts, frame.dts, frame.time_base
            frame.pts, frame.time_base = self._count, _TICK
            self._count += 1
        self._graph.push(frame)
        done: list[VideoFrame] = []
        while True:
            try:
                held: Any = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return done
            number = round(held.pts * held.time_base / _TICK)
            held.pts, held.dts, time_base = self._times.pop(number)
            if time_base is not None:
                held.time_base = time_base
            done.append(held)


def _layout(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _luma(frame: VideoFrame) -> npt.NDArray[np.int16]:
    """A part of the first plane, 8 bits of each value: every fourth of a row, and of four rows the first two."""
    plane = frame.planes[0]
    bits = frame.format.components[0].bits
    kind: Any = np.uint16 if bits > 8 else np.uint8
    rows: npt.NDArray[Any] = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
    rows = rows[: plane.height // 4 * 4, : frame.width : 4].reshape(plane.height // 4, 4, -1)[:, :2]
    eight: npt.NDArray[np.int16] = (rows.reshape(-1, rows.shape[-1]) >> max(0, bits - 8)).astype(np.int16)
    return eight
