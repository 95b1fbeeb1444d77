"""Deinterlacing video whose frames consist of two fields of different times, by FFmpeg's filters, frame by frame."""

from collections.abc import Generator
from fractions import Fraction
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

_TICK = Fraction(1, 1000)  # time base of the filter graph, where a frame's time is its number
_ORDERS = {2: "tff", 4: "tff", 3: "bff", 5: "bff"}  # AVFieldOrder, as FFmpeg's decoders of raw video interpret it
_MPEG = {"h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "cavs"}
_FLAGGED = _MPEG | {"vc1", "wmv3", "dvvideo", "prores", "dnxhd"}  # codecs that flag interlaced frames
_FILM = ("fieldmatch", {"order": "auto", "combmatch": "full"})
_LEAST = 16  # px: smaller pictures have no fields
_MOVES = 1.0  # mean difference of two fields, levels, from which on something moves
_REPEATS = 0.2  # a repeated field differs by at most this share of the other field's difference
_CYCLE = 5  # frames of 3:2 pulldown for four frames of film


class Deinterlacer:
    """Deinterlaces the frames of one decoder that are flagged as interlaced, and passes on the others.

    The flag is believed, even if both fields show the same moment. For codecs without flags the container's field order
    is used. Frames of 3:2 pulldown are made of the fields of one film frame, so that one frame of five comes twice.
    From the first interlaced frame on, the output is delayed by one frame.

    note  what was done, in words; None: nothing
    """

    def __init__(self, context: VideoCodecContext) -> None:
        order = getattr(context, "field_order", 0)  # missing in PyAV 16
        self._told = _ORDERS.get(order) if context.name not in _FLAGGED else None
        self._graph: _FieldGraph | None = None
        self._cadence = Cadence()
        self.note: str | None = None

    def all_of(self, frames: Generator[VideoFrame, None, None]) -> Generator[VideoFrame, None, None]:
        """Yield all frames, deinterlaced. `frames` is closed with the result."""
        try:
            for frame in frames:
                yield from self(frame)
            yield from self(None)
        finally:
            frames.close()

    def __call__(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """The frames that are ready after this one, in order; for None the last ones, at the end."""
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
    """Detects 3:2 pulldown, where of five frames one repeats the top field of the frame before, and another the bottom
    field."""

    def __init__(self) -> None:
        self._before: npt.NDArray[np.int16] | None = None
        self._repeats: list[set[int]] = [set(), set()]  # numbers of frames that repeat the top and the bottom field
        self._count = 0
        self._found = False

    def __call__(self, frame: VideoFrame) -> bool:
        """True if the video is telecined, judged up to this frame. Once True, it stays True."""
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
    """The filter graph for frames of one size and format.

    told  field order from the container, for frames without flags
    film  the video is telecined
    """

    def __init__(self, first: VideoFrame, told: str | None, *, film: bool) -> None:
        self.note = "telecined (3:2 pulldown), film frames put together again" if film else "interlaced, deinterlaced"
        self._kind = (_layout(first), film)
        self._times: dict[int, tuple[Any, Any, Any]] = {}
        self._count = 0
        # For decoders that set no flags, setfield sets the container's field order on every frame.
        steps: list[tuple[str, dict[str, str]]] = [("setfield", {"mode": told})] if told is not None else []
        steps += [_FILM] if film else []
        steps += [("bwdif", {"mode": "send_frame", "parity": "auto", "deint": "interlaced"}), ("buffersink", {})]
        self._graph = Graph()
        self._graph.threads = 2
        source = self._graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=_TICK)
        self._graph.link_nodes(source, *(self._graph.add(name, **options) for name, options in steps)).configure()

    def takes(self, frame: VideoFrame, film: bool) -> bool:
        """True if this graph was made for frames of this kind."""
        return self._kind == (_layout(frame), film)

    def __call__(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """The frames that are ready after this one, with their own times; for None the last ones."""
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
    """A sample of the luma in 8 bits: every fourth pixel of the first two of every four rows."""
    plane = frame.planes[0]
    bits = frame.format.components[0].bits
    kind: Any = np.uint16 if bits > 8 else np.uint8
    rows: npt.NDArray[Any] = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
    rows = rows[: plane.height // 4 * 4, : frame.width : 4].reshape(plane.height // 4, 4, -1)[:, :2]
    eight: npt.NDArray[np.int16] = (rows.reshape(-1, rows.shape[-1]) >> max(0, bits - 8)).astype(np.int16)
    return eight
