"""Inks and lines over a picture on a CPU, in one pass; the blur by OpenCV."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel
from warpfuse.stages.cpu.opencv import each_plane
from warpfuse.stages.formulas.composite import sharpened_to

Planes = npt.NDArray[np.float32]

_f32, _i32 = np.float32, np.int32


def composed(
    paint: Tensor,
    cover: Tensor | None,
    table: Tensor | None,
    ink: tuple[float, float, float],
    lines: float,
    strength: float,
) -> Tensor:
    """`formulas.composed`."""
    if not strength or (table is None and cover is None):
        return paint
    planes: Planes = paint[0].to(torch.float32).contiguous().numpy()
    out = torch.empty(1, *planes.shape)
    entries = np.zeros(0, np.float32) if table is None else table.contiguous().numpy().reshape(-1)
    side = 0 if table is None else table.shape[0]
    laid = np.zeros((0, 0), np.float32) if cover is None else cover[0, 0].to(torch.float32).contiguous().numpy()
    shares = np.array([strength, strength * lines, *ink], np.float32)
    _compose(planes, laid, entries, side, shares, out[0].numpy())
    return out


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """`formulas.as_sharp_as`."""
    return sharpened_to(fused, fused - _nearby(fused), drawn - _nearby(drawn))


def _nearby(x: Tensor) -> Tensor:
    return each_plane(x, lambda plane, out: cv2.blur(plane, (3, 3), out, borderType=cv2.BORDER_REPLICATE))


@kernel("void(float32[:, :, ::1], float32[:, ::1], float32[::1], int64, float32[::1], float32[:, :, ::1])")
def _compose(paint: Planes, cover: Planes, table: Planes, side: int, shares: Planes, out: Planes) -> None:
    """shares: of the table, of the lines, and their colour; cover [h, w] or empty; table flat, side 0 for none."""
    _, h, w = paint.shape
    printed, lines = shares[0], shares[1]
    top, last = _f32(side - 1), _i32(side - 2)
    right, down, deep = _i32(3), _i32(3 * side), _i32(3 * side * side)
    at, t = np.empty(w, np.int32), np.empty((3, w), np.float32)
    for y in range(h):
        for x in range(w if side else 0):
            r, g, b = paint[0, y, x] * top, paint[1, y, x] * top, paint[2, y, x] * top
            i = min(max(_i32(r), _i32(0)), last)  # NaN may be any
            j = min(max(_i32(g), _i32(0)), last)
            k = min(max(_i32(b), _i32(0)), last)
            t[0, x] = min(max(r - _f32(i), _f32(0)), _f32(1))
            t[1, x] = min(max(g - _f32(j), _f32(0)), _f32(1))
            t[2, x] = min(max(b - _f32(k), _f32(0)), _f32(1))
            at[x] = k * deep + j * down + i * right
        for c in range(3):
            ink = shares[2 + c]
            for x in range(w):
                p = paint[c, y, x]
                if side:
                    o = at[x] + _i32(c)
                    tr, tg, tb = t[0, x], t[1, x], t[2, x]
                    p00 = table[o] + tr * (table[o + right] - table[o])
                    p10 = table[o + down] + tr * (table[o + down + right] - table[o + down])
                    q = o + deep
                    p01 = table[q] + tr * (table[q + right] - table[q])
                    p11 = table[q + down] + tr * (table[q + down + right] - table[q + down])
                    near, far = p00 + tg * (p10 - p00), p01 + tg * (p11 - p01)
                    p += printed * (near + tb * (far - near) - p)
                if cover.size:
                    p += lines * cover[y, x] * (ink - p)
                out[c, y, x] = p
