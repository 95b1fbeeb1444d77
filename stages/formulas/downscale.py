"""Pictures downscaled for the flow: luma at the flow's size, colours at the size of the confidence."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Size = tuple[int, int]


def seen(rgb: Tensor, size: Size, cell: int) -> tuple[Tensor, Tensor]:
    """The inputs of a flow stage from a picture [1, 3, h, w] in [0, 1].

    size  (h, w) of the flow, no larger than the picture
    cell  side of the square cells of the confidence, in pixels of the flow

    Returns the luma, uint8 [*size], and the picture [1, 3, *judged_size(size, cell)], with a pixel for each cell.
    """
    near = _halved_towards(rgb, size)
    y = luma(near)
    if y.shape != size:
        y = interpolate(y[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return (y * 255).round_().clamp_(0, 255).to(torch.uint8), resized(near, judged_size(size, cell))


def judged_size(size: Size, cell: int) -> Size:
    """`size` divided by `cell`, rounded up."""
    return -(-size[0] // cell), -(-size[1] // cell)


def luma(rgb: Tensor) -> Tensor:
    """Luma of BT.601: [1, 3, h, w] -> [h, w]."""
    return (rgb[0, 0] * 0.299).add_(rgb[0, 1], alpha=0.587).add_(rgb[0, 2], alpha=0.114)


def resized(x: Tensor, size: Size) -> Tensor:
    """Resize bilinearly, [b, c, h, w] -> [b, c, *size]. For half the size or less it halves first, against aliasing."""
    x = _halved_towards(x, size)
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return interpolate(x, size, mode="bilinear", align_corners=False)


def _halved_towards(x: Tensor, size: Size) -> Tensor:
    """Halve [b, c, h, w] by the mean over 2 x 2 pixels, as often as both sides stay at least `size`."""
    while x.shape[-2] >= 2 * size[0] and x.shape[-1] >= 2 * size[1]:
        x = interpolate(x, (x.shape[-2] // 2, x.shape[-1] // 2), mode="area")
    return x
