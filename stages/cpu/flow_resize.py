"""Flow fields of a CPU as OpenCV gives them, [h, w, 2], brought to the planes and sizes they are needed at."""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel, part

Vectors = npt.NDArray[np.float32]
Planes = npt.NDArray[np.float32]
Places = npt.NDArray[np.int32]

_f32, _u64 = np.float32, np.uint64


def in_cells(vectors: Vectors, size: tuple[int, int]) -> Tensor:
    """[h, w, 2] px -> the mean over square cells, [1, 2, *size] in pixels of it: h and w by the cell, rounded up."""
    out = torch.empty(1, 2, *size)
    cell = -(-vectors.shape[0] // size[0])
    gains = np.array([size[1] / vectors.shape[1], size[0] / vectors.shape[0]], np.float32)
    _cells(vectors, cell, gains, out[0].numpy())
    return out


def enlarged(vectors: Vectors, size: tuple[int, int]) -> Tensor:
    """[h, w, 2] px -> [1, 2, *size] in pixels of `size`, bilinear between pixel centres."""
    h, w, _ = vectors.shape
    out = torch.empty(1, 2, *size)
    if (h, w) == size:
        cv2.split(vectors, list(out[0].numpy()))
        return out
    gains = np.array([size[1] / w, size[0] / h], np.float32)
    _enlarge(vectors.reshape(h, 2 * w), gains, *_along(w, size[1]), *_along(h, size[0]), out[0].numpy())
    return out


@lru_cache(maxsize=64)
def _along(have: int, want: int) -> tuple[Places, Planes]:
    """Which pixel of `have` each of `want` lies at or after, and how far on the way to the next."""
    at = np.clip((np.arange(want) + 0.5) * (have / want) - 0.5, 0, have - 1)
    first = np.floor(at)
    return first.astype(np.int32), (at - first).astype(np.float32)


@kernel("void(float32[:, :, ::1], int64, float32[::1], float32[:, :, ::1])")
def _cells(vectors: Vectors, cell: int, gains: Planes, out: Planes) -> None:
    h, w, _ = vectors.shape
    sums = np.empty(2 * out.shape[2] * cell, np.float32)
    for y in range(out.shape[1]):
        sums[:] = _f32(0)
        last = min((y + 1) * cell, h)
        for line in range(y * cell, last):
            row = vectors[line].reshape(-1)
            for x in range(2 * w):
                sums[x] += row[x]
        _cell_row(sums, cell, w, gains[0] / _f32(last - y * cell), gains[1] / _f32(last - y * cell), y, out)


@part
def _cell_row(sums: Planes, cell: int, w: int, gain_x: np.float32, gain_y: np.float32, y: int, out: Planes) -> None:
    whole = w // cell
    if cell == 2:
        for x in range(whole):
            out[0, y, x] = (sums[4 * x] + sums[4 * x + 2]) * (gain_x * _f32(0.5))
            out[1, y, x] = (sums[4 * x + 1] + sums[4 * x + 3]) * (gain_y * _f32(0.5))
    for x in range(whole if cell == 2 else 0, out.shape[2]):
        last = min((x + 1) * cell, w)
        total_x, total_y = _f32(0), _f32(0)
        for i in range(x * cell, last):
            total_x += sums[2 * i]
            total_y += sums[2 * i + 1]
        out[0, y, x], out[1, y, x] = total_x * gain_x / _f32(last - x * cell), total_y * gain_y / _f32(last - x * cell)


@kernel("void(float32[:, ::1], float32[::1], int32[::1], float32[::1], int32[::1], float32[::1], float32[:, :, ::1])")
def _enlarge(
    lines: Planes, gains: Planes, columns: Places, across: Planes, rows: Places, down: Planes, out: Planes
) -> None:
    """lines [h, 2 w]: a vector is one word of 8 bytes, read at once."""
    h, width = lines.shape[0], lines.shape[1]
    line = np.empty(width + 2, np.float32)
    words = line.view(np.uint64)
    wide = out.shape[2]
    left, right = np.empty(wide, np.uint64), np.empty(wide, np.uint64)
    lefts, rights = left.view(np.float32), right.view(np.float32)
    for y in range(out.shape[1]):
        top = np.int64(rows[y])
        upper, lower, t = lines[top], lines[min(top + 1, h - 1)], down[y]
        for x in range(width):
            line[x] = upper[x] + t * (lower[x] - upper[x])
        line[width], line[width + 1] = line[width - 2], line[width - 1]
        for x in range(wide):
            i = _u64(columns[x])
            left[x], right[x] = words[i], words[i + _u64(1)]
        gain_x, gain_y = gains[0], gains[1]
        for x in range(wide):
            s = across[x]
            out[0, y, x] = gain_x * (lefts[2 * x] + s * (rights[2 * x] - lefts[2 * x]))
            out[1, y, x] = gain_y * (lefts[2 * x + 1] + s * (rights[2 * x + 1] - lefts[2 * x + 1]))
