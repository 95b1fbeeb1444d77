"""What the flow remembers of a picture on a CPU: its luma, a half of it, and its colours."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel, part

Planes = npt.NDArray[np.float32]
Gray = npt.NDArray[np.uint8]

_f32 = np.float32


def luma_bytes(rgb: Tensor) -> Gray:
    """[1, 3, h, w] in [0, 1] -> uint8 [h, w], BT.601 luma."""
    planes = _planes(rgb)
    out = np.empty(planes.shape[1:], np.uint8)
    _look(planes, out, np.empty((3, 0, 0), np.float32))
    return out


def luma_and_half(rgb: Tensor) -> tuple[Gray, Tensor]:
    """The same and, in one go, the mean over cells of 2 x 2, [1, 3, h // 2, w // 2]; an odd last line is left out."""
    planes = _planes(rgb)
    _, h, w = planes.shape
    out, half = np.empty((h, w), np.uint8), torch.empty(1, 3, h // 2, w // 2)
    _look(planes, out, half[0].numpy())
    return out, half


def colour_histogram(rgb: Tensor, every: int = 1) -> Tensor:
    """As `trust.colour_histogram`, of every so manieth pixel each way."""
    shares = np.empty(512, np.float32)
    _count(_planes(rgb), every, shares)
    return torch.from_numpy(shares)


def _planes(rgb: Tensor) -> Planes:
    planes: Planes = rgb[0].to(torch.float32).contiguous().numpy()
    return planes


@kernel("void(float32[:, :, ::1], uint8[:, ::1], float32[:, :, ::1])")
def _look(planes: Planes, luma: Gray, half: Planes) -> None:
    """planes [3, h, w]; luma [h, w]; half [3, h // 2, w // 2], or of no size."""
    _, h, w = planes.shape
    line = np.empty(w, np.float32)
    red, green, blue = _f32(0.299 * 255), _f32(0.587 * 255), _f32(0.114 * 255)
    for y in range(h):
        r, g, b = planes[0, y], planes[1, y], planes[2, y]
        for x in range(w):
            level = red * r[x] + green * g[x] + blue * b[x] + _f32(0.5)
            luma[y, x] = np.uint8(np.int32(min(max(level, _f32(0)), _f32(255))))
        if y % 2 and y // 2 < half.shape[1]:
            for c in range(3):
                above, below = planes[c, y - 1], planes[c, y]
                for x in range(w):
                    line[x] = (above[x] + below[x]) * _f32(0.25)
                for x in range(half.shape[2]):
                    half[c, y // 2, x] = line[2 * x] + line[2 * x + 1]


@kernel("void(float32[:, :, ::1], int64, float32[::1])")
def _count(planes: Planes, every: int, shares: Planes) -> None:
    """planes [3, h, w]; shares [512] of each colour, written."""
    _, h, w = planes.shape
    counts = np.zeros(len(shares), np.int64)
    for y in range(0, h, every):
        for x in range(0, w, every):
            r, g, b = _shade(planes[0, y, x]), _shade(planes[1, y, x]), _shade(planes[2, y, x])
            counts[r * 64 + g * 8 + b] += 1
    total = counts.sum()
    for index in range(len(shares)):
        shares[index] = _f32(counts[index] / total)


@part
def _shade(value: np.float32) -> int:
    return min(max(int(value * _f32(8)), 0), 7)
