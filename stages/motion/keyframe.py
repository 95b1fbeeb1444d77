"""A keyframe: a picture that somebody made of a frame of the source, and which frame that is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.formulas.downscale import luma
from warpfuse.stages.formulas.pixels import planes_of
from warpfuse.stages.frame import Picture, Stamp
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.motion.keyframe_file import read_fitted
from warpfuse.stages.motion.settings import AnchorSettings

LEAST_LIKE = 0.6
"""Likeness from which on a frame may be the one that a keyframe was made of. Of five styles on three clips the true
frame is at 0.72 or more."""

_MORE = 0.01  # by which a frame must be more alike than the best so far: noise of a camera is less
_SMALL_PX = 64  # of the longer side: things, and no strokes
_AROUND = 9  # pixels of that size whose mean is taken away: what is lighter all over is no less alike
_SETTLED = 8  # frames after which the best so far is said
_PATIENCE = 250  # frames without a likeness after which that is said
_EARLY_NS = 1_000_000  # rounding of a time that was typed


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """A keyframe as it was read.

    name   of its file
    rgb    [1, 3, h, w] in [0, 1]
    cover  [1, 1, h, w] in [0, 1]: 0 where it is transparent; none: 1 everywhere
    frame  [1, 3, h, w] in [0, 1]: what it was painted over; none: not given
    """

    name: str
    rgb: Tensor
    cover: Tensor | None
    frame: Tensor | None


def read_keyframe(settings: AnchorSettings, framing: Framing, device: str) -> Keyframe:
    """The files, fitted into the frame. Raises KeyframeError."""
    rgb, cover = _planes(settings.picture, framing, "picture", device)
    frame = _planes(settings.frame, framing, "frame", device)[0] if settings.frame else None
    return Keyframe(Path(settings.picture).name, rgb, cover, frame)


def _planes(name: str, framing: Framing, key: str, device: str) -> tuple[Tensor, Tensor | None]:
    pixels = torch.from_numpy(read_fitted(name, framing, key)).to(device)
    rgb, cover = planes_of(pixels[..., :3]), pixels[None, None, ..., 3].to(torch.float32) / 255
    return rgb, None if bool((cover == 1).all()) else cover


class Details(NamedTuple):
    """A picture as likeness sees it. y: luma less its mean around, [h, w], small; cover: [h, w], what of it counts."""

    y: Tensor
    cover: Tensor


def details_of(rgb: Tensor, cover: Tensor | None, ops: Arithmetic) -> Details:
    """Of a picture [1, 3, h, w], and how much of each pixel counts, [1, 1, h, w]; none: all."""
    h, w = rgb.shape[-2:]
    scale = min(1.0, _SMALL_PX / max(h, w))
    size = max(1, round(h * scale)), max(1, round(w * scale))
    y = luma(ops.resized(rgb, size))[None, None]
    y = y - avg_pool2d(y, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    return Details(y[0, 0], torch.ones_like(y[0, 0]) if cover is None else ops.resized(cover, size)[0, 0])


def likeness(one: Details, other: Details) -> float:
    """Normalised correlation, -1..1; 0 for what is all of one colour. It waits for the device."""
    w = one.cover * other.cover
    total = w.sum().clamp_min(1e-6)
    a, b = (x.y - (w * x.y).sum() / total for x in (one, other))
    power = (w * a * a).sum() * (w * b * b).sum()
    return float(torch.where(power > 1e-12, (w * a * b).sum() / power.clamp_min(1e-12).sqrt(), power.new_zeros(())))


class KeyframeSearch:
    """Which frame a keyframe was made of, asked frame by frame.

    With `at` it is the first from that time on. Else it is the frame that is most like the keyframe: one that is more
    so than all before takes its place.

    say  is told which it is, and how alike; or that none is
    """

    def __init__(self, keyframe: Keyframe, at: float | None, device: str, say: Callable[[str], None]) -> None:
        self._at_ns = None if at is None else round(at * 1e9) - _EARLY_NS
        self._ops = arithmetic(device)
        self._name, self._tell = keyframe.name, say
        self._details = details_of(keyframe.rgb, keyframe.cover, self._ops)
        self._best: tuple[float, Stamp] | None = None
        self._found = self._said = False
        self._asked = 0  # frames since the best

    def is_it(self, frame: Picture) -> bool:
        """Whether the keyframe belongs to this frame, as far as is known by now. It waits for the device."""
        self._asked += 1
        if self._at_ns is not None:
            return self._is_due(frame.stamp, self._at_ns)
        like = likeness(self._details, details_of(frame.rgb, None, self._ops))
        more = self._best is None or like > self._best[0] + (_MORE if self._found else 0)
        if more:
            self._best, self._asked, self._said = (like, frame.stamp), 0, False
            self._found = self._found or like >= LEAST_LIKE
        elif self._asked == (_SETTLED if self._found else _PATIENCE):
            self._report()
        return more and self._found

    def end(self) -> None:
        """No frame is asked about any more: say what was not said yet."""
        if self._at_ns is None:
            self._report()
        elif not self._said:
            self._say(f"no frame came at {_seconds(self._at_ns + _EARLY_NS)}")

    def _say(self, line: str) -> None:
        self._tell(f"keyframe {self._name}: {line}")

    def _is_due(self, stamp: Stamp, at_ns: int) -> bool:
        if self._said or stamp.pts_ns < at_ns:
            return False
        self._said = True
        if self._asked == 1 and stamp.seq > 0:  # it was given when its time was over
            self._say(
                f"the source is past {_seconds(at_ns + _EARLY_NS)} already. Give stages.anchor.frame, the picture it"
                " was painted over, or no time, to have its frame found"
            )
            return False
        self._say(f"of frame {stamp.seq}, at {_seconds(stamp.pts_ns)}")
        return True

    def _report(self) -> None:
        if self._said or self._best is None:
            return
        self._said = True
        like, stamp = self._best
        which = f"frame {stamp.seq}, at {_seconds(stamp.pts_ns)}"
        if self._found:
            self._say(f"of {which}, likeness {like:.2f}")
        else:
            self._say(
                f"no frame is like it; most is {which}, likeness {like:.2f} of {LEAST_LIKE:g}. Give stages.anchor.at,"
                " the seconds of its frame, or stages.anchor.frame, the picture it was painted over"
            )


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.2f} s"
