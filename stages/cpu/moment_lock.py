"""The locks of `formulas/moment_lock.py` on a CPU: means and deviations of every channel in few passes.

A channel is read several times, and is in the cache after the first. Loops run over whole channels, because rows of a
latent are short, and starting a loop costs as much as half a row. Sums are float32 over `_CHUNK` cells, and float64
over the chunks. So they are as exact for a large latent as for a small one.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel, part

Array = npt.NDArray[np.float32]

# The constants of the formula, repeated: numba compiles the kernels again only when this file itself changes.
_RADIUS = 2  # of the local mean, cells: `_sums_along` and `_parted` have its five rows and columns written out
_SMALLEST, _LARGEST = 0.5, 2.0
_NOTHING = 1e-6

_CHUNK = 4096
_FOUR = "float32[:, :, :, ::1]"
_SHARE = np.float32(1 / (2 * _RADIUS + 1) ** 2)
_NONE: Any = np.float32(0)
_TWO: Any = np.float32(2)
_THREE: Any = np.float32(3)


def lock_to_source(z_ref: Tensor, z: Tensor) -> Tensor:
    """As `formulas.lock_to_source`."""
    own, other = (x.to(torch.float32).contiguous() for x in (z, z_ref))
    out = torch.empty_like(own)
    _lock_to_source(other.numpy(), own.numpy(), out.numpy())
    return out.to(z.dtype)


def lock_to_prediction(
    x: Tensor,
    x0: Tensor,
    trust: Tensor,
    gain: Tensor | None,
    exit: float,
    rate: float,
    coverage: float,
    drift: float,
) -> tuple[Tensor, Tensor]:
    """As `formulas.lock_to_prediction`."""
    fused, own, seen = (one.to(torch.float32).contiguous() for one in (x, x0, trust))
    known = gain is not None and gain.shape[1] == x.shape[1]
    after = gain.to(torch.float32).clone() if gain is not None and known else torch.empty(1, x.shape[1], 1, 1)
    out = torch.empty_like(fused)
    numbers = exit, rate, coverage, drift
    _lock_to_prediction(fused.numpy(), own.numpy(), seen.numpy(), after.numpy(), out.numpy(), known, *numbers)
    return out.to(x.dtype), after


@part
def _sums_along(plane: Array, sums: Array) -> None:
    """Sum five cells of a row around each cell of plane [h, w], with replicated edges.

    sums  [h + 4, w], written: also two replicated rows above and two below
    """
    h, w = plane.shape
    first, inner = plane.reshape(-1), sums.reshape(-1)[2 * w + 2 :]
    second, third, fourth, fifth = first[1:], first[2:], first[3:], first[4:]
    for k in range(h * w - 4):
        inner[k] = (first[k] + second[k]) + (fourth[k] + fifth[k]) + third[k]
    a, b, c, d = w - 1, w - 2, w - 3, w - 4  # the loop above is wrong at the ends of rows, which are set again here
    for y in range(h):
        if w < 4:
            for x in range(w):
                near = plane[y, max(x - 2, 0)] + plane[y, max(x - 1, 0)] + plane[y, min(x + 1, a)]
                sums[y + 2, x] = near + plane[y, x] + plane[y, min(x + 2, a)]
        else:
            sums[y + 2, 0] = _THREE * plane[y, 0] + plane[y, 1] + plane[y, 2]
            sums[y + 2, 1] = _TWO * plane[y, 0] + plane[y, 1] + plane[y, 2] + plane[y, 3]
            sums[y + 2, b] = _TWO * plane[y, a] + plane[y, b] + plane[y, c] + plane[y, d]
            sums[y + 2, a] = _THREE * plane[y, a] + plane[y, b] + plane[y, c]
    for x in range(w):
        sums[0, x] = sums[1, x] = sums[2, x]
        sums[h + 2, x] = sums[h + 3, x] = sums[h + 1, x]


@part
def _parted(plane: Array, sums: Array, detail: Array) -> Any:
    """Write plane [h, w] minus its mean over 5 x 5 cells, with replicated edges, to detail [h * w].

    sums  [h + 4, w], working memory

    Returns the standard deviation of detail.
    """
    n, w = plane.size, plane.shape[1]
    _sums_along(plane, sums)
    flat, every = plane.reshape(-1), sums.reshape(-1)
    total, squares = 0.0, 0.0
    for start in range(0, n, _CHUNK):
        row, out, first = flat[start : start + _CHUNK], detail[start : start + _CHUNK], every[start:]
        second, third, fourth, fifth = first[w:], first[2 * w :], first[3 * w :], first[4 * w :]
        s, s2 = _NONE, _NONE
        for k in range(len(out)):
            value = row[k] - _SHARE * ((first[k] + second[k]) + (fourth[k] + fifth[k]) + third[k])
            out[k] = value
            s += value
            s2 += value * value
        total, squares = total + s, squares + s2
    variance = (squares - total * total / n) / (n - 1)  # no cancellation, since the mean of detail is nearly 0
    return np.sqrt(0.0 if variance < 0 else variance)


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR})")
def _lock_to_source(z_ref: Array, z: Array, out: Array) -> None:
    b, c, h, w = z.shape
    sums = np.empty((h + 4, w), np.float32)
    detail, detail_ref = np.empty(h * w, np.float32), np.empty(h * w, np.float32)
    for i in range(b):
        for j in range(c):
            gain = _gain(_parted(z[i, j], sums, detail), _parted(z_ref[i, j], sums, detail_ref))
            own, target = z[i, j].reshape(-1), out[i, j].reshape(-1)
            for k in range(h * w):
                target[k] = (own[k] - detail[k]) + gain * detail_ref[k]


@part
def _gain(loud: float, loud_ref: float) -> Any:
    wide = loud / (_NOTHING if loud_ref < _NOTHING else loud_ref)
    return np.float32(1.0 if wide > 1.0 else wide)


@part
def _sum(x: Array, trust: Array) -> Any:
    """Sum of trust x, [n] each."""
    total = 0.0
    for start in range(0, len(x), _CHUNK):
        own, m, s = x[start : start + _CHUNK], trust[start : start + _CHUNK], _NONE
        for k in range(len(own)):
            s += m[k] * own[k]
        total += s
    return total


@part
def _squares(x: Array, mean: Any, trust: Array) -> Any:
    """Sum of trust (x - mean)^2, [n] each."""
    total = 0.0
    for start in range(0, len(x), _CHUNK):
        own, m, s = x[start : start + _CHUNK], trust[start : start + _CHUNK], _NONE
        for k in range(len(own)):
            s += m[k] * ((own[k] - mean) * (own[k] - mean))
        total += s
    return total


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR}, {_FOUR}, {_FOUR}, boolean, float64, float64, float64, float64)")
def _lock_to_prediction(
    x: Array,
    x0: Array,
    trust: Array,
    gains: Array,
    out: Array,
    known: bool,
    exit: float,
    rate: float,
    coverage: float,
    drift: float,
) -> None:
    """gains [1, c, 1, 1]: updated in place."""
    n, trusted, seen = trust.size, 0.0, trust.reshape(-1)
    for start in range(0, n, _CHUNK):
        s = _NONE
        for m in seen[start : start + _CHUNK]:
            s += m
        trusted += s
    total = _NOTHING if trusted < _NOTHING else trusted
    for j in range(x.shape[1]):
        fused, own, target = x[0, j].reshape(-1), x0[0, j].reshape(-1), out[0, j].reshape(-1)
        mean, mean_0 = np.float32(_sum(fused, seen) / total), np.float32(_sum(own, seen) / total)
        loud = np.sqrt(_squares(fused, mean, seen) / total)
        loud_0 = np.sqrt(_squares(own, mean_0, seen) / total)
        wide = (loud_0 + _NOTHING) / (loud + _NOTHING)
        now = _SMALLEST if wide < _SMALLEST else (_LARGEST if wide > _LARGEST else wide)
        before = gains[0, j, 0, 0] if known else now
        ratio = now / before
        near = ratio <= 1 + drift and ratio >= 1 / (1 + drift)  # False for NaN, which so lasts for one frame only
        gain = before + rate * (now - before) if near and trusted / n >= coverage else now
        gains[0, j, 0, 0] = gain
        share = np.float32(exit * (gain - 1))
        for k in range(n):
            target[k] = fused[k] + share * (fused[k] - mean) * seen[k]
