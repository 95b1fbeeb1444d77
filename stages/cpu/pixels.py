"""Pictures of bytes to planes of floats and back on a CPU."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel

Picture = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]

_f32 = np.float32


def planes_of(rgb: Picture) -> Tensor:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in [0, 1]."""
    h, w, _ = rgb.shape
    out = torch.empty(1, 3, h, w)
    _spread(np.ascontiguousarray(rgb).reshape(h, 3 * w), out[0].numpy())
    return out


def bytes_of(rgb: Tensor) -> Picture:
    """float32 [1, 3, h, w] -> uint8 [h, w, 3]: [0, 1] is 0 to 255, rounded to the nearest, halves to the even level.

    What is beyond is held, up to 8e6 either way. As a card makes it, to the bit.
    """
    planes: Planes = rgb[0].to(torch.float32).contiguous().numpy()
    _, h, w = planes.shape
    out = np.empty((h, w, 3), np.uint8)
    _gather(planes, out.reshape(h, 3 * w))
    return out


@kernel("void(Array(uint8, 2, 'C', readonly=True), float32[:, :, ::1])")
def _spread(lines: Picture, planes: Planes) -> None:
    _, h, w = planes.shape
    scale = _f32(1 / 255)
    for y in range(h):
        for x in range(w):
            planes[0, y, x] = _f32(lines[y, 3 * x]) * scale
            planes[1, y, x] = _f32(lines[y, 3 * x + 1]) * scale
            planes[2, y, x] = _f32(lines[y, 3 * x + 2]) * scale


@kernel("void(float32[:, :, ::1], uint8[:, ::1])")
def _gather(planes: Planes, lines: Picture) -> None:
    _, h, w = planes.shape
    for y in range(h):
        for x in range(w):
            for c in range(3):
                # Rounding and conversion are one instruction, and so are holding an integer and making it a byte.
                level = np.int32(np.rint(planes[c, y, x] * _f32(255)))
                lines[y, 3 * x + c] = np.uint8(min(max(level, np.int32(0)), np.int32(255)))
