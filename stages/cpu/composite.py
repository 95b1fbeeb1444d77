"""A colour table and lines applied to a picture on a CPU, and small changes fused, each in one pass."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel
from warpfuse.stages.cpu.opencv import each_plane
from warpfuse.stages.formulas.composite import sharpened_to

Planes = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.uint64]

LEVELS = 1020
"""Steps of a table's colours: four for each of the 255 of a `lut` file, which are exact. They fit into ten bits."""

_f32, _i32 = np.float32, np.int32


def composed(paint: Tensor, cover: Tensor | None, table: Tensor | None, shares: Tensor) -> Tensor:
    """As `formulas.composed`, with the colours of the table rounded to LEVELS steps."""
    if table is None and cover is None:
        return paint
    planes: Planes = paint[0].to(torch.float32).contiguous().numpy()
    out = torch.empty(1, *planes.shape)
    side = 0 if table is None else table.shape[0]
    pairs = np.empty(side**3, np.uint64)
    if table is not None:
        _pair(table.contiguous().numpy().reshape(-1, 3), pairs)
    laid = np.zeros((0, 0), np.float32) if cover is None else cover[0, 0].to(torch.float32).contiguous().numpy()
    _compose(planes, laid, pairs, side, shares.numpy(), out[0].numpy())
    return out


def cored(x: Tensor, past: Tensor, trust: Tensor, numbers: Tensor) -> Tensor:
    """As `formulas.cored`."""
    own, before, seen = (one[0].to(torch.float32).contiguous() for one in (x, past, trust))
    out = torch.empty(1, *own.shape)
    _core(own.numpy(), before.numpy(), seen[0].numpy(), numbers.numpy(), out[0].numpy())
    return out


def fuse_lines(cover: Tensor, past: Tensor, trust: Tensor, numbers: Tensor, coring: bool) -> Tensor:
    """As `formulas.fuse_lines`."""
    fused = torch.lerp(cover, past, trust * numbers[0])
    return as_sharp_as(cover, cored(fused, past, trust, numbers[1:]) if coring else fused)


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """As `formulas.as_sharp_as`."""
    return sharpened_to(fused, fused - _nearby(fused), drawn - _nearby(drawn))


def _nearby(x: Tensor) -> Tensor:
    return each_plane(x, lambda plane, out: cv2.blur(plane, (3, 3), out, borderType=cv2.BORDER_REPLICATE))


@kernel("void(float32[:, :, ::1], float32[:, :, ::1], float32[:, ::1], float32[::1], float32[:, :, ::1])")
def _core(x: Planes, past: Planes, trust: Planes, numbers: Planes, out: Planes) -> None:
    weight, limit = numbers[0], numbers[1]
    channels, h, w = x.shape
    for c in range(channels):
        for i in range(h):
            for j in range(w):
                change = min(max(x[c, i, j] - past[c, i, j], -limit), limit)
                out[c, i, j] = x[c, i, j] - weight * trust[i, j] * change


@kernel("void(float32[:, ::1], uint64[::1])")
def _pair(table: Planes, out: Pairs) -> None:
    """Pack each colour of a table [n, 3] and the next one into a word, 10 bits a channel. It halves the reads."""
    n = len(table)
    for i in range(n):
        both = np.uint64(0)
        for k in range(2):
            for c in range(3):
                level = min(max(table[min(i + k, n - 1), c] * _f32(LEVELS) + _f32(0.5), _f32(0)), _f32(LEVELS))
                both |= np.uint64(level) << np.uint64(32 * k + 10 * c)
        out[i] = both


@kernel("void(float32[:, :, ::1], float32[:, ::1], uint64[::1], int64, float32[::1], float32[:, :, ::1])")
def _compose(paint: Planes, cover: Planes, table: Pairs, side: int, shares: Planes, out: Planes) -> None:
    """shares: of the table, of the lines, and the lines' colour. cover: [h, w] or empty. table: from `_pair`; side 0:
    none.

    Gathering vectors is slow on a CPU. So the entries for each pixel of a row are first read one by one into an array.
    """
    _, h, w = paint.shape
    printed, lines, unit = shares[0], shares[1], _f32(1.0 / LEVELS)
    top, last, ten_bits = _f32(side - 1), _i32(side - 2), np.uint32(1023)
    down, deep = _i32(side), _i32(side * side)
    at, t, pairs = np.empty(w, np.int32), np.empty((3, w), np.float32), np.empty((4, w), np.uint64)
    near = pairs.view(np.uint32)
    for y in range(h):
        for x in range(w if side else 0):
            r, g, b = paint[0, y, x] * top, paint[1, y, x] * top, paint[2, y, x] * top
            i = min(max(_i32(r), _i32(0)), last)  # bounded also for NaN, which may become any integer
            j = min(max(_i32(g), _i32(0)), last)
            k = min(max(_i32(b), _i32(0)), last)
            t[0, x] = min(max(r - _f32(i), _f32(0)), _f32(1))
            t[1, x] = min(max(g - _f32(j), _f32(0)), _f32(1))
            t[2, x] = min(max(b - _f32(k), _f32(0)), _f32(1))
            at[x] = k * deep + j * down + i
        for x in range(w if side else 0):
            o = at[x]
            pairs[0, x], pairs[1, x] = table[o], table[o + down]
            pairs[2, x], pairs[3, x] = table[o + deep], table[o + deep + down]
        for c in range(3):
            ink, bits = shares[2 + c], np.uint32(10 * c)
            for x in range(w):
                p = paint[c, y, x]
                if side:
                    tr, tg, tb = t[0, x], t[1, x], t[2, x]
                    a00, b00 = (near[0, 2 * x] >> bits) & ten_bits, (near[0, 2 * x + 1] >> bits) & ten_bits
                    a10, b10 = (near[1, 2 * x] >> bits) & ten_bits, (near[1, 2 * x + 1] >> bits) & ten_bits
                    a01, b01 = (near[2, 2 * x] >> bits) & ten_bits, (near[2, 2 * x + 1] >> bits) & ten_bits
                    a11, b11 = (near[3, 2 * x] >> bits) & ten_bits, (near[3, 2 * x + 1] >> bits) & ten_bits
                    p00 = _f32(_i32(a00)) + tr * _f32(_i32(b00) - _i32(a00))
                    p10 = _f32(_i32(a10)) + tr * _f32(_i32(b10) - _i32(a10))
                    p01 = _f32(_i32(a01)) + tr * _f32(_i32(b01) - _i32(a01))
                    p11 = _f32(_i32(a11)) + tr * _f32(_i32(b11) - _i32(a11))
                    upper, lower = p00 + tg * (p10 - p00), p01 + tg * (p11 - p01)
                    p += printed * ((upper + tb * (lower - upper)) * unit - p)
                if cover.size:
                    p += lines * cover[y, x] * (ink - p)
                out[c, y, x] = p
