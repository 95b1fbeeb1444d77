"""What the flow looks at: a picture at the sizes it is compared and judged at, and its luma."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Size = tuple[int, int]


def seen(rgb: Tensor, size: Size, cell: int) -> tuple[Tensor, Tensor]:
    """[1, 3, h, w] in [0, 1] -> luma uint8 [*size], and the picture [1, 3, h', w'], a pixel for each cell of that.

    size  (h, w), no larger than the picture
    cell  side of the square cells; h' and w' are those of `size` by it, rounded up
    """
    near = _halved_towards(rgb, size)
    y = luma(near)
    if y.shape != size:
        y = interpolate(y[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return (y * 255).round_().clamp_(0, 255).to(torch.uint8), resized(near, judged_size(size, cell))


def judged_size(size: Size, cell: int) -> Size:
    """`size` by `cell`, rounded up."""
    return -(-size[0] // cell), -(-size[1] // cell)


def luma(rgb: Tensor) -> Tensor:
    """[1, 3, h, w] -> [h, w], BT.601."""
    return rgb[0, 0] * 0.299 + rgb[0, 1] * 0.587 + rgb[0, 2] * 0.114


def resized(x: Tensor, size: Size) -> Tensor:
    """[b, c, h, w] -> [b, c, *size], bilinear; what is to be half as large or less is halved first, else it aliases."""
    x = _halved_towards(x, size)
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return interpolate(x, size, mode="bilinear", align_corners=False)


def _halved_towards(x: Tensor, size: Size) -> Tensor:
    """[b, c, h, w] -> the mean over cells of 2 x 2, again and again while that leaves `size` or more."""
    while x.shape[-2] >= 2 * size[0] and x.shape[-1] >= 2 * size[1]:
        x = interpolate(x, (x.shape[-2] // 2, x.shape[-1] // 2), mode="area")
    return x
