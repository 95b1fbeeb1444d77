"""The pictures of a run for those who look: the newest only, composed and encoded once for all who want it alike.

While nobody looks a frame costs two references. What is shown, its source and its motion are of the same frame.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

import cv2
import numpy as np
from torch import Tensor

from warpfuse.engine.cuda_streams import new_stream, on, reads, wrote
from warpfuse.engine.device import Event
from warpfuse.stages.formulas.pixels import bytes_of
from warpfuse.stages.frame import Frame, Mask, Picture, RawFrame
from warpfuse.stages.geometry.framing import scaled
from warpfuse.stages.sinks.fanout import jpeg
from warpfuse.web.bell import AsyncEvent
from warpfuse.web.motion import MotionView, Rgb, doubt_over, flow_over

View = Literal["styled", "source", "side", "control", "mask"]
Overlay = Literal["none", "flow", "trust"]
VIEWS: tuple[View, ...] = get_args(View)
OVERLAYS: tuple[Overlay, ...] = get_args(Overlay)

_GAP_PX = 4  # between the pictures of a view of several
_IN_FLIGHT = 64  # frames between the source and the page at most; older ones were dropped on the way

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """How the pictures are looked at."""

    view: View = "styled"
    overlay: Overlay = "none"


@dataclass(frozen=True, slots=True)
class MapView:
    """A control map or a mask as its stage gave it, [1, 3, h, w] in [0, 1], kept by reference and read only when
    somebody looks."""

    picture: Tensor
    ready: Event | None

    def rgb(self) -> Rgb:
        """uint8 [h, w, 3], on the host. Blocks the calling thread alone."""
        rgb = self.picture
        stream = new_stream(str(rgb.device))
        with on(stream):
            reads((rgb,), self.ready, stream)
            return bytes_of(rgb).cpu().numpy()


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that was shown, and what belongs to it. number: counts pictures; 0 is none.

    maps  of its controls, by their names
    mask  which part of it is styled
    """

    number: int
    styled: Rgb
    source: Rgb | None
    motion: MotionView | None
    maps: Mapping[str, MapView]
    mask: MapView | None = None


class Pictures:
    """The newest pictures. Threads of the run write, any thread reads; a reader never blocks the run.

    Not a `Latest`: a picture stays for those who look later, and is composed in as many ways as they look.

    bell     rings for every picture
    viewers  how many look now
    """

    def __init__(self) -> None:
        self.bell = AsyncEvent()
        self.viewers = 0
        self._lock = threading.Lock()
        self._sources: OrderedDict[int, Rgb] = OrderedDict()
        self._motions: OrderedDict[int, MotionView] = OrderedDict()
        self._maps: OrderedDict[int, dict[str, MapView]] = OrderedDict()
        self._masks: OrderedDict[int, MapView] = OrderedDict()
        self._shown: Shown | None = None
        self._number = 0
        self._composed: dict[Look, _Once[Rgb]] = {}
        self._jpegs: dict[Look, _Once[bytes]] = {}

    def saw_source(self, frame: RawFrame) -> None:
        """Keep a frame of the source."""
        with self._lock:
            self._sources[frame.stamp.seq] = frame.rgb
            _keep_newest(self._sources)

    def saw_motion(self, frame: Frame | RawFrame) -> None:
        """Keep the motion of a frame, while there are viewers. Called in the stage's thread."""
        if not self.viewers or not isinstance(frame, Frame):
            return
        motion = MotionView.of(frame)
        if motion is not None:
            with self._lock:
                self._motions[frame.stamp.seq] = motion
                _keep_newest(self._motions)

    def saw_map(self, control: str, frame: Frame) -> None:
        """Keep the map of a control, while there are viewers. Called in the stage's thread."""
        if not self.viewers or not isinstance(frame, Picture):
            return
        made = MapView(frame.rgb, wrote(frame.rgb.device))
        with self._lock:
            self._maps.setdefault(frame.stamp.seq, {})[control] = made
            _keep_newest(self._maps)

    def saw_mask(self, frame: Frame) -> None:
        """Keep the mask of a frame, while there are viewers. Called in the stage's thread."""
        if not self.viewers or not isinstance(frame, Mask):
            return
        made = MapView(frame.weight.expand(-1, 3, -1, -1), wrote(frame.weight.device))
        with self._lock:
            self._masks[frame.stamp.seq] = made
            _keep_newest(self._masks)

    def show(self, frame: RawFrame) -> None:
        """Take the newest styled picture, and wake the viewers."""
        seq = frame.stamp.seq
        with self._lock:
            source, motion = _taken(self._sources, seq), _taken(self._motions, seq)
            maps, mask = _taken(self._maps, seq) or {}, _taken(self._masks, seq)
            self._number += 1
            self._shown = Shown(self._number, frame.rgb, source, motion, maps, mask)
        self.bell.notify()

    def start_over(self) -> None:
        """Begin a new run, whose frames are numbered from 0. The last picture stays until the first new one."""
        with self._lock:
            self._sources.clear()
            self._motions.clear()
            self._maps.clear()
            self._masks.clear()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer inside the block. With a viewer motion is kept, so an overlay has it in the next picture."""
        with self._lock:
            self.viewers += 1
        try:
            yield
        finally:
            with self._lock:
                self.viewers -= 1
                if not self.viewers:
                    self._motions.clear()
                    self._maps.clear()
                    self._masks.clear()

    @property
    def shown(self) -> Shown | None:
        """The newest picture, None before the first."""
        return self._shown

    def composed(self, look: Look) -> tuple[int, Rgb] | None:
        """Number and pixels, uint8 RGB [h, w, 3], of the newest picture as `look` wants it. Read-only."""
        shown = self._shown
        if shown is None:
            return None
        return self._once(self._composed, look).of(shown.number, lambda: _compose(shown, look))

    def jpeg(self, look: Look) -> tuple[int, bytes] | None:
        """Number and JPEG of the newest picture."""
        composed = self.composed(look)
        if composed is None:
            return None
        number, rgb = composed
        return self._once(self._jpegs, look).of(number, lambda: jpeg(rgb))

    def png(self, look: Look) -> bytes | None:
        """PNG of the newest picture."""
        composed = self.composed(look)
        return None if composed is None else png(composed[1])

    def _once(self, memory: "dict[Look, _Once[T]]", look: Look) -> "_Once[T]":
        with self._lock:
            return memory.setdefault(look, _Once())


class _Once(Generic[T]):
    """A form of the newest picture. The first caller makes it; others wait for the result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[int, T] | None = None

    def of(self, number: int, make: Callable[[], T]) -> tuple[int, T]:
        with self._lock:
            if self._made is None or self._made[0] < number:
                self._made = number, make()
            return self._made


def _keep_newest(held: "OrderedDict[int, T]") -> None:
    while len(held) > _IN_FLIGHT:
        held.popitem(last=False)


def _taken(held: "OrderedDict[int, T]", seq: int) -> T | None:
    """Remove and return the entry of frame seq. Older entries are removed too, since their frames were dropped."""
    found = held.pop(seq, None)
    while held and next(iter(held)) < seq:
        held.popitem(last=False)
    return found


def _compose(shown: Shown, look: Look) -> Rgb:
    styled = shown.styled
    source = np.zeros_like(styled) if shown.source is None else _as_large(shown.source, styled)
    if look.view == "source":
        return _overlaid(source, shown.motion, look.overlay)
    if look.view == "control":
        maps = [_as_large(shown.maps[name].rgb(), styled) for name in sorted(shown.maps)]
        return _beside(maps or [np.zeros_like(styled)])
    if look.view == "mask":
        return np.full_like(styled, 255) if shown.mask is None else _as_large(shown.mask.rgb(), styled)
    styled = _overlaid(styled, shown.motion, look.overlay)
    if look.view == "styled":
        return styled
    return _beside([source, styled])


def _as_large(rgb: Rgb, styled: Rgb) -> Rgb:
    """A picture of the networks' size at that of the output."""
    return scaled(rgb, (styled.shape[1], styled.shape[0]))


def _beside(pictures: list[Rgb]) -> Rgb:
    """Pictures of one height in a row."""
    gap = np.zeros((pictures[0].shape[0], _GAP_PX, 3), np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=1)


def _overlaid(rgb: Rgb, motion: MotionView | None, overlay: Overlay) -> Rgb:
    if motion is None or overlay == "none":
        return rgb
    flow, trust = motion.fields()
    return flow_over(rgb, flow) if overlay == "flow" else doubt_over(rgb, trust)


def png(rgb: Rgb) -> bytes:
    """uint8 RGB [h, w, 3] as a PNG file."""
    _, data = cv2.imencode(".png", rgb[:, :, ::-1])
    return data.tobytes()
