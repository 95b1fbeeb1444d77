"""Held frames: frames for which the networks do not run.

In place of a held frame the last picture is shown, either warped along the flow (`warp`) or unchanged (`repeat`). A
frame is judged once, before the first network, and carries the verdict in its stamp.
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

_LOOK_PX = 64  # long side of the thumbnails that are compared
_SETTLING = 2  # first frames, whose times are not used: networks allocate memory
_SHARE = 0.2  # weight of a new time in a running mean


class PaceSettings(StageSettings):
    """Which frames are held.

    skip         the networks run on every skip-th frame; between them the last picture is shown, warped
    still        0..1: if no spot of a frame differs by this much from the last predicted frame, the last picture is
                 shown again; 0: off. 0.02 is above the noise of a camera
    deadline_ms  a frame that could not be shown within this time of its arrival is held; none: no deadline
    at_most      frames held in a row for the deadline; the next is predicted, late or not
    cut_colour   0..1: a frame whose colour histogram differs more than this is a scene cut and never held
    """

    skip: int = Field(1, ge=1, le=30)
    still: float = Field(0.0, ge=0, le=1)
    deadline_ms: float | None = Field(None, gt=0)
    at_most: int = Field(8, ge=1)
    cut_colour: float = Field(0.2, ge=0, le=1)

    @property
    def active(self) -> bool:
        """Some frames may be held."""
        return self.skip > 1 or self.still > 0 or self.deadline_ms is not None


@dataclass(frozen=True, slots=True)
class _Look:
    """What frames are compared by: a thumbnail, uint8 [h, w, 3], and its colour histogram, float [512] of sum 1."""

    picture: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.float64]


@dataclass(slots=True)
class _Flight:
    """A predicted frame under way. ahead: number of predicted frames in front of it when it was judged."""

    judged_ns: int
    ahead: int


class Pacer:
    """Judges frames in their order. `judge` is called by one thread, `left` by another; time is an argument.

    The time that a frame will take is estimated as t1 + n t2, with n predicted frames in front of it. t1 is the time of
    a frame with none in front, and t2 the interval between two frames that leave. Both are running means. A held frame
    adds none to n, so the next frame is more likely to be in time.
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
        return raw.stamped(replace(raw.stamp, hold=hold))

    def left(self, stamp: Stamp, now_ns: int) -> None:
        """Note that a frame was handed to the sink at `now_ns`."""
        with self._lock:
            flight = self._flights.pop(stamp.seq, None)
            if flight is None:
                return
            self._seen += 1
            between, self._departed_ns = now_ns - self._departed_ns, now_ns
            if self._seen <= _SETTLING:
                return
            if flight.ahead:  # otherwise the interval before it includes idle time
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
    """Thumbnail and histogram of a frame, uint8 [h, w, 3].

    Motion's `colour_histogram` is not used, because a capture process loads neither torch nor the compiled loops.
    """
    h, w = rgb.shape[:2]
    scale = min(1.0, _LOOK_PX / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    picture: Any = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    shade = (picture >> 5).astype(np.int64)
    index = (shade[..., 0] * 64 + shade[..., 1] * 8 + shade[..., 2]).ravel()
    return _Look(picture, np.bincount(index, minlength=512) / index.size)


def _distance(a: _Look, b: _Look) -> float:
    """Half the L1 distance of the histograms, in [0, 1]."""
    return float(np.abs(a.colours - b.colours).sum()) / 2


def _change(a: _Look, b: _Look) -> float:
    """Largest difference of any value of the thumbnails, in [0, 1]."""
    return float(np.abs(a.picture.astype(np.int16) - b.picture).max()) / 255


def _mean(mean: float, value: float) -> float:
    return value if mean == 0 else mean + _SHARE * (value - mean)
