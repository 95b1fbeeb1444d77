"""Converting planes of floats to a picture of bytes on a CPU, in one pass."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import kernel

Picture = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]

_f32 = np.float32


def bytes_of(rgb: Tensor) -> Tensor:
    """As `formulas.bytes_of`, to the bit for values up to +-8e6."""
    planes: Planes = rgb[0].to(torch.float32).contiguous().numpy()
    _, h, w = planes.shape
    out = torch.empty((h, w, 3), dtype=torch.uint8)
    _gather(planes, out.numpy().reshape(h, 3 * w))
    return out


@kernel("void(float32[:, :, ::1], uint8[:, ::1])")
def _gather(planes: Planes, lines: Picture) -> None:
    _, h, w = planes.shape
    for y in range(h):
        for x in range(w):
            for c in range(3):
                # In this order each pair is one instruction: round and convert, clamp the integer and narrow it.
                level = np.int32(np.rint(planes[c, y, x] * _f32(255)))
                lines[y, 3 * x + c] = np.uint8(min(max(level, np.int32(0)), np.int32(255)))
