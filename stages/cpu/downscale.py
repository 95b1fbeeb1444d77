"""Pictures downscaled for the flow and its confidence, by OpenCV."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.opencv import planes, resize_area, resize_bilinear
from warpfuse.stages.formulas.downscale import Size, judged_size

Gray = npt.NDArray[np.uint8]


def seen(rgb: Tensor, size: Size, cell: int) -> tuple[Tensor, Tensor]:
    """As `formulas.seen`. The luma may differ by one level."""
    near = _halved_towards(rgb, size)
    gray = luma_bytes(near)
    if gray.shape != size:
        gray = np.asarray(cv2.resize(gray, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    return torch.from_numpy(gray), resized(near, judged_size(size, cell))


def resized(x: Tensor, size: Size) -> Tensor:
    """As `formulas.resized`."""
    x = _halved_towards(x, size)
    return x if tuple(x.shape[-2:]) == tuple(size) else resize_bilinear(x, size)


def _halved_towards(x: Tensor, size: Size) -> Tensor:
    while x.shape[-2] >= 2 * size[0] and x.shape[-1] >= 2 * size[1]:
        x = resize_area(x, (x.shape[-2] // 2, x.shape[-1] // 2))
    return x


def luma_bytes(rgb: Tensor) -> Gray:
    """[1, 3, h, w] in [0, 1] -> uint8 [h, w], BT.601 luma."""
    red, green, blue = planes(rgb)[0]
    both = cv2.addWeighted(red, 255 * 0.299, green, 255 * 0.587, 0)
    # The luma of bytes is a multiple of 0.001. Adding half of that makes every half level round up, despite errors.
    return np.asarray(cv2.addWeighted(both, 1, blue, 255 * 0.114, 0.0005, dtype=cv2.CV_8U), np.uint8)
