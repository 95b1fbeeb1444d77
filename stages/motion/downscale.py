"""What the flow looks at: a picture at the sizes it is compared and judged at, and its luma."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from warpfuse.stages.cpu.luma import luma_and_half, luma_bytes
from warpfuse.stages.cpu.opencv import resize_area, resize_bilinear

Size = tuple[int, int]


def seen(rgb: Tensor, size: Size, cell: int) -> tuple[Tensor, Tensor]:
    """[1, 3, h, w] in [0, 1] -> luma uint8 [*size], and the picture [1, 3, h', w'], a pixel for each cell of that.

    size  (h, w), no larger than the picture
    cell  side of the square cells; h' and w' are those of `size` by it, rounded up
    """
    near = halved_towards(rgb, size)
    judged = -(-size[0] // cell), -(-size[1] // cell)
    return _seen_on_host(near, size, judged) if rgb.device.type == "cpu" else seen_by_torch(near, size, judged)


def _seen_on_host(near: Tensor, size: Size, judged: Size) -> tuple[Tensor, Tensor]:
    if near.shape[-2] // 2 >= judged[0] and near.shape[-1] // 2 >= judged[1]:
        gray, near = luma_and_half(near)
    else:
        gray = luma_bytes(near)
    if gray.shape != size:
        gray = np.asarray(cv2.resize(gray, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    return torch.from_numpy(gray), resized(near, judged)


def seen_by_torch(near: Tensor, size: Size, judged: Size) -> tuple[Tensor, Tensor]:
    """`seen` on any device, of a picture that is less than twice as large."""
    luma = near[0, 0] * 0.299 + near[0, 1] * 0.587 + near[0, 2] * 0.114
    if luma.shape != size:
        luma = interpolate(luma[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return (luma * 255).round_().clamp_(0, 255).to(torch.uint8), resized(near, judged)


def halved_towards(x: Tensor, size: Size) -> Tensor:
    """[b, c, h, w] -> the mean over cells of 2 x 2, again and again while that leaves `size` or more."""
    while x.shape[-2] >= 2 * size[0] and x.shape[-1] >= 2 * size[1]:
        half = x.shape[-2] // 2, x.shape[-1] // 2
        x = resize_area(x, half) if x.device.type == "cpu" else interpolate(x, half, mode="area")
    return x


def resized(x: Tensor, size: Size) -> Tensor:
    """[b, c, h, w] -> [b, c, *size], bilinear; what is to be half as large or less is halved first, else it aliases."""
    x = halved_towards(x, size)
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.device.type == "cpu":
        return resize_bilinear(x, size)
    return interpolate(x, size, mode="bilinear", align_corners=False)
