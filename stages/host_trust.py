"""The sums behind `trust` on a CPU, plane by plane and in place: there every pass over a picture is a cost of its own.

Each function gives what its namesake in `trust.py` gives of one picture; a test holds them together.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from warpfuse.stages.trust import TrustSettings

Planes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SHADES = 8  # of each channel


def believed(flow: Planes, back: Planes, cur: Planes, prev: Planes, settings: TrustSettings) -> Planes:
    """Trust before it is grown and feathered, [h, w], a new array. flow, back [2, h, w]; cur, prev [c, h, w]."""
    m = photometric(cur, prev, settings.photometric, settings.softness)
    mask = inside(flow)
    if settings.check == "squared":
        mask &= consistent_squared(flow, back, settings.slope, settings.offset)
    elif settings.check == "norm":
        mask &= consistent_norm(flow, back, settings.slope, settings.offset)
    np.multiply(m, mask, out=m)
    return m


def photometric(cur: Planes, prev: Planes, threshold: float, softness: float) -> Planes:
    """As `trust.photometric`."""
    gap: Planes = cv2.absdiff(cur[0], prev[0])
    for ours, theirs in zip(cur[1:], prev[1:], strict=True):
        gap += cv2.absdiff(ours, theirs)
    if softness == 0:
        hard: Planes = np.less_equal(gap, threshold * len(cur)).astype(np.float32)
        return hard
    gap *= -1 / (softness * threshold * len(cur))
    gap += (1 + softness) / softness
    np.clip(gap, 0, 1, out=gap)
    return gap


def inside(flow: Planes) -> Mask:
    """As `trust.inside`."""
    h, w = flow.shape[1:]
    x = flow[0] + _from_the_middle(w)
    y = flow[1] + _from_the_middle(h)[:, None]
    mask: Mask = np.less_equal(np.abs(x, out=x), w / 2)
    mask &= np.less_equal(np.abs(y, out=y), h / 2)
    return mask


def consistent_squared(flow: Planes, back: Planes, slope: float, offset: float) -> Mask:
    """As `trust.consistent` "squared": with |f|^2 + |b|^2 = (|f + b|^2 + |f - b|^2) / 2, two squares and not three."""
    gap2, twice = _square(flow + back), _square(flow - back)
    gap2 *= 1 - slope / 2
    twice *= slope / 2
    twice += offset
    mask: Mask = np.less_equal(gap2, twice)
    return mask


def consistent_norm(flow: Planes, back: Planes, slope: float, offset: float) -> Mask:
    """As `trust.consistent` "norm"."""
    lengths = cv2.magnitude(*flow) + cv2.magnitude(*back)
    mask: Mask = np.less_equal(cv2.magnitude(*(flow + back)), slope * lengths + offset)
    return mask


def colour_histogram(rgb: Planes) -> Planes:
    """As `trust.colour_histogram`: [3, h, w] in [0, 1] -> [512]."""
    h, w = rgb.shape[1:]
    # rounded to the nearest of what is half a shade less, a hair's breadth apart: the shade below
    shade = cv2.convertScaleAbs(rgb.reshape(3 * h, w), alpha=_SHADES, beta=-0.499999)
    np.minimum(shade, _SHADES - 1, out=shade)
    counts = cv2.calcHist(list(shade.reshape(3, h, w)), [0, 1, 2], None, [_SHADES] * 3, [0, _SHADES] * 3)
    return np.asarray(counts, np.float32).ravel() / np.float32(h * w)


def _square(vectors: Planes) -> Planes:
    """|v|^2, [h, w], in the memory of v."""
    vectors *= vectors
    vectors[0] += vectors[1]
    total: Planes = vectors[0]
    return total


@cache
def _from_the_middle(length: int) -> Planes:
    return np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)
