"""Doing less: which frames the networks are spared, and what is shown instead.

A frame is held in one of two ways: the last picture warped along the flow (`warp`), or shown again as it was
(`repeat`). It is judged once, before the first network, and carries the verdict in its stamp.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from warpfuse.stages.frame import Hold, RawFrame, Stamp
from warpfuse.stages.settings import StageSettings

_LOOK_PX = 64  # long side of the small picture frames are compared by
_SETTLING = 2  # frames whose time says nothing yet: networks allocate
_SHARE = 0.2  # of a new time in a running mean


class PaceSettings(StageSettings):
    """When the networks are spared.

    skip         they run on every skip-th frame; the frames between are the last picture, warped
    still        0..1: a frame that differs from the last predicted one by less than this, anywhere, is shown as that
                 was; 0 switches it off. 0.02 is above a camera's noise
    deadline_ms  a frame that could not be shown within this time of its arrival is held; none: all are waited for
    at_most      frames held in a row for the deadline; then one is predicted, late or not
    cut_colour   distance of colour histograms from which on a frame is a scene cut and never held, [0, 1]
    """

    skip: int = Field(1, ge=1, le=30)
    still: float = Field(0.0, ge=0, le=1)
    deadline_ms: float | None = Field(None, gt=0)
    at_most: int = Field(8, ge=1)
    cut_colour: float = Field(0.2, ge=0, le=1)

    @property
    def active(self) -> bool:
        """Whether any frame may be held."""
        return self.skip > 1 or self.still > 0 or self.deadline_ms is not None


@dataclass(frozen=True, slots=True)
class _Look:
    """A frame, small: what it is compared by. picture uint8 [h, w, 3]; colours float [512], summing to 1."""

    picture: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.float64]


@dataclass(slots=True)
class _Flight:
    judged_ns: int
    ahead: int


class Pacer:
    """Judges frames in their order. `judge` is called by one thread, `left` by another; time is an argument.

    The time a frame will take is estimated as that of a frame with nothing in front of it, and for each predicted frame
    in front the time between two of them. Both are running means of what was seen, so one hold makes room for the next
    frame: what a late frame missed is repaired at once if it can be.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[int, _Flight] = {}
        self._alone_ns = 0.0
        self._between_ns = 0.0
        self._departed_ns = 0
        self._seen = 0
        self._since = 0
        self._late = 0
        self._shown: _Look | None = None
        self._before: _Look | None = None

    def judge(self, raw: RawFrame, settings: PaceSettings, now_ns: int) -> RawFrame:
        """The frame with the verdict in its stamp."""
        hold: Hold = ""
        if settings.active:
            look = _look(raw.rgb)
            hold = self._verdict(raw.stamp, look, settings, now_ns)
            self._before = look
            if not hold:
                self._shown = look
        self._since = self._since + 1 if hold else 0
        if not hold:
            with self._lock:
                self._flights[raw.stamp.seq] = _Flight(now_ns, len(self._flights))
            return raw
        return RawFrame(replace(raw.stamp, hold=hold), raw.rgb)

    def left(self, stamp: Stamp, now_ns: int) -> None:
        """A frame has been handed to the sink."""
        with self._lock:
            flight = self._flights.pop(stamp.seq, None)
            if flight is None:
                return
            self._seen += 1
            between, self._departed_ns = now_ns - self._departed_ns, now_ns
            if self._seen <= _SETTLING:
                return
            if flight.ahead:  # otherwise the pause before it was nobody's work
                self._between_ns = _mean(self._between_ns, between)
            alone = now_ns - flight.judged_ns - flight.ahead * self._between_ns
            self._alone_ns = _mean(self._alone_ns, max(alone, self._between_ns))

    def _verdict(self, stamp: Stamp, look: _Look, settings: PaceSettings, now_ns: int) -> Hold:
        if self._shown is None or self._before is None or stamp.discontinuity:
            return ""
        if look.picture.shape != self._before.picture.shape or _distance(look, self._before) > settings.cut_colour:
            return ""
        if settings.still and _change(look, self._shown) < settings.still:
            return "repeat"
        if self._since + 1 < settings.skip:
            return "warp"
        if self._is_late(stamp, settings, now_ns) and self._late < settings.at_most:
            self._late += 1
            return "warp"
        self._late = 0
        return ""

    def _is_late(self, stamp: Stamp, settings: PaceSettings, now_ns: int) -> bool:
        if settings.deadline_ms is None:
            return False
        with self._lock:
            takes = self._alone_ns + len(self._flights) * self._between_ns
        return now_ns + takes > stamp.arrived_ns + settings.deadline_ms * 1e6


def _look(rgb: npt.NDArray[np.uint8]) -> _Look:
    """Not `colour_histogram` of the flow: a process that only captures loads neither torch nor compiled loops."""
    h, w = rgb.shape[:2]
    scale = min(1.0, _LOOK_PX / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    picture: Any = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    shade = (picture >> 5).astype(np.int64)
    index = (shade[..., 0] * 64 + shade[..., 1] * 8 + shade[..., 2]).ravel()
    return _Look(picture, np.bincount(index, minlength=512) / index.size)


def _distance(a: _Look, b: _Look) -> float:
    """Half the L1 distance of the colours, in [0, 1]."""
    return float(np.abs(a.colours - b.colours).sum()) / 2


def _change(a: _Look, b: _Look) -> float:
    """Largest difference of any spot, in [0, 1]."""
    return float(np.abs(a.picture.astype(np.int16) - b.picture).max()) / 255


def _mean(mean: float, value: float) -> float:
    return value if mean == 0 else mean + _SHARE * (value - mean)
