"""The locks of `diffusion/moment_lock.py`: means and deviations of every channel, and what comes of them.

A channel is read several times, and lies in the nearest memory after the first. Loops run over whole channels: rows of
a latent are short, and to begin a loop costs as much as half a row. Sums are of float32 for `_CHUNK` cells and of
float64 over those, so they are as exact for the largest latent as for a small one.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import exact_part, kernel, part

Array = npt.NDArray[np.float32]

RADIUS = 2  # cells, of the local mean: `_sums_along` and `_parted` write out its five rows and columns
SMALLEST, LARGEST = 0.5, 2.0  # of the exit's gain: beyond them it is noise, not contrast
NOTHING = 1e-6

_CHUNK = 4096
_FOUR = "float32[:, :, :, ::1]"
_SHARE = np.float32(1 / (2 * RADIUS + 1) ** 2)
_NONE: Any = np.float32(0)
_TWO: Any = np.float32(2)
_THREE: Any = np.float32(3)


def locked_to_source(z_ref: Tensor, z: Tensor) -> Tensor:
    """`anchor.lock_to_source` of latents [b, c, h, w] that `latents.takes_alike`."""
    out = torch.empty_like(z)
    _locked_to_source(z_ref.numpy(), z.numpy(), out.numpy())
    return out


def fused_to_source(
    z_ref: Tensor, z: Tensor, n: Tensor, trust: Tensor, weight: float, alpha: float, sigma: float
) -> Tensor:
    """`anchor.fuse_locked` where both have the noise n; all `latents.takes_alike`, trust `latents.takes_map`."""
    out = torch.empty_like(z)
    _fused_to_source(z_ref.numpy(), z.numpy(), n.numpy(), trust.numpy(), weight, alpha, sigma, out.numpy())
    return out


def fused_to_anchor(
    x0: Tensor, x0_ref: Tensor, trust: Tensor, weight: float, gain: Tensor, known: bool, lock: tuple[float, ...]
) -> Tensor:
    """`anchor.Anchor.fuse` of latents [1, c, h, w] that `latents.takes_alike` and a trust that `latents.takes_map`.

    gain   [1, c, 1, 1], the anchor: moved in its place
    known  whether gain holds what earlier frames left
    lock   exit, rate, coverage, drift
    """
    out = torch.empty_like(x0)
    _fused_to_anchor(x0.numpy(), x0_ref.numpy(), trust.numpy(), gain.numpy(), out.numpy(), weight, known, *lock)
    return out


@part
def _sums_along(plane: Array, sums: Array) -> None:
    """Sum of five cells in a row around each cell of plane [h, w]; its edge goes on, two rows above and below as well.

    sums  [h + 4, w], written
    """
    h, w = plane.shape
    first, inner = plane.reshape(-1), sums.reshape(-1)[2 * w + 2 :]
    second, third, fourth, fifth = first[1:], first[2:], first[3:], first[4:]
    for k in range(h * w - 4):
        inner[k] = (first[k] + second[k]) + (fourth[k] + fifth[k]) + third[k]
    a, b, c, d = w - 1, w - 2, w - 3, w - 4  # the ends of rows, where that ran over into the next
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
    """detail [h * w] = plane [h, w] less the mean over 5 x 5 cells around each cell, the edge goes on; its deviation.

    sums  [h + 4, w], written over
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
    variance = (squares - total * total / n) / (n - 1)  # the mean of such a detail is next to nothing
    return np.sqrt(0.0 if variance < 0 else variance)


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR})")
def _locked_to_source(z_ref: Array, z: Array, out: Array) -> None:
    b, c, h, w = z.shape
    sums = np.empty((h + 4, w), np.float32)
    detail, detail_ref = np.empty(h * w, np.float32), np.empty(h * w, np.float32)
    for i in range(b):
        for j in range(c):
            gain = _gain(_parted(z[i, j], sums, detail), _parted(z_ref[i, j], sums, detail_ref))
            own, target = z[i, j].reshape(-1), out[i, j].reshape(-1)
            for k in range(h * w):
                target[k] = (own[k] - detail[k]) + gain * detail_ref[k]


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR}, {_FOUR}, float32, float32, float32, {_FOUR})")
def _fused_to_source(
    z_ref: Array, z: Array, n: Array, trust: Array, weight: float, alpha: float, sigma: float, out: Array
) -> None:
    b, c, h, w = z.shape
    sums = np.empty((h + 4, w), np.float32)
    detail, detail_ref = np.empty(h * w, np.float32), np.empty(h * w, np.float32)
    for i in range(b):
        m = trust[min(i, len(trust) - 1), 0].reshape(-1)
        for j in range(c):
            gain = _gain(_parted(z[i, j], sums, detail), _parted(z_ref[i, j], sums, detail_ref))
            own, noise, target = z[i, j].reshape(-1), n[i, j].reshape(-1), out[i, j].reshape(-1)
            for k in range(h * w):
                # what the locked reference has over z, so that z is left to the bit where the weight is 0
                blended = own[k] + (weight * m[k]) * (gain * detail_ref[k] - detail[k])
                target[k] = _composed(alpha, blended, sigma, noise[k])


@exact_part
def _composed(alpha: Any, x0: Any, sigma: Any, n: Any) -> Any:
    """As `sampling.compose` to the bit."""
    return alpha * x0 + sigma * n


@part
def _gain(loud: float, loud_ref: float) -> Any:
    wide = loud / (NOTHING if loud_ref < NOTHING else loud_ref)
    return np.float32(1.0 if wide > 1.0 else wide)


@part
def _blended(own: Array, other: Array, trust: Array, weight: Any, out: Array) -> Any:
    """out = own + w (other - own), w = weight trust, [n] each; the sum of trust out."""
    total = 0.0
    for start in range(0, len(out), _CHUNK):
        x0, x0_ref = own[start : start + _CHUNK], other[start : start + _CHUNK]
        m, x, s = trust[start : start + _CHUNK], out[start : start + _CHUNK], _NONE
        for k in range(len(x)):
            blended = x0[k] + (weight * m[k]) * (x0_ref[k] - x0[k])
            x[k] = blended
            s += m[k] * blended
        total += s
    return total


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


@kernel(
    f"void({_FOUR}, {_FOUR}, {_FOUR}, {_FOUR}, {_FOUR}, float32, boolean, float64, float64, float64, float64)",
)
def _fused_to_anchor(
    x0: Array,
    x0_ref: Array,
    trust: Array,
    gains: Array,
    out: Array,
    weight: float,
    known: bool,
    exit: float,
    rate: float,
    coverage: float,
    drift: float,
) -> None:
    n, trusted, seen = trust.size, 0.0, trust.reshape(-1)
    for start in range(0, n, _CHUNK):
        s = _NONE
        for m in seen[start : start + _CHUNK]:
            s += m
        trusted += s
    total = NOTHING if trusted < NOTHING else trusted
    for j in range(x0.shape[1]):
        own, x = x0[0, j].reshape(-1), out[0, j].reshape(-1)
        mean = np.float32(_blended(own, x0_ref[0, j].reshape(-1), seen, weight, x) / total)
        mean_0 = np.float32(_sum(own, seen) / total)
        loud = np.sqrt(_squares(x, mean, seen) / total)
        loud_0 = np.sqrt(_squares(own, mean_0, seen) / total)
        wide = (loud_0 + NOTHING) / (loud + NOTHING)
        now = SMALLEST if wide < SMALLEST else (LARGEST if wide > LARGEST else wide)
        before = gains[0, j, 0, 0] if known else now
        ratio = now / before
        near = ratio <= 1 + drift and ratio >= 1 / (1 + drift)  # NaN is not: it leaves with the frame that brought it
        gain = before + rate * (now - before) if near and trusted / n >= coverage else now
        gains[0, j, 0, 0] = gain
        share = np.float32(exit * (gain - 1))
        for k in range(n):
            x[k] += share * (x[k] - mean) * seen[k]
