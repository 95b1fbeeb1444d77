"""The final picture of a bundle that draws lines: the paint, mapped by a colour table, with lines over it."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

LARGEST_GAIN = 2.0
"""Largest gain of `as_sharp_as`: a larger ratio comes from noise, not from lines."""


def shares_of(ink: tuple[float, float, float], lines: float, strength: float) -> Tensor:
    """The numbers of `composed`, float32 [5] on the host: s, s lines, and the ink.

    ink       colour of the lines, in [0, 1]
    lines     opacity of the lines, in [0, 1]
    strength  s, in [0, 1]; 0 gives the paint itself
    """
    return torch.tensor([strength, strength * lines, *ink])


def composed(paint: Tensor, cover: Tensor | None, table: Tensor | None, shares: Tensor) -> Tensor:
    """Compose the picture:  p + s lines cover (ink - p)  with  p = paint + s (table(paint) - paint).

    paint   [1, 3, h, w] in [0, 1]
    cover   [1, 1, h, w] in [0, 1], or None for no lines
    table   colour table, float32 [n, n, n, 3] indexed by blue, green, red; interpolated trilinearly. None: unchanged
    shares  from `shares_of`, on the device of the paint
    """
    printed = paint
    if table is not None:
        printed = torch.lerp(paint, _looked_up(paint, table), shares[0])
    if cover is None:
        return printed
    return torch.lerp(printed, shares[2:].view(1, 3, 1, 1), shares[1] * cover)


def cored(x: Tensor, past: Tensor, trust: Tensor, numbers: Tensor) -> Tensor:
    """Fuse small changes once more, pixel by pixel:  x - w trust clip(x - past, -limit, limit).

    It is the coring of temporal noise filters. Where paint is printed by a steep table, a change that is hardly visible
    lets an area change its ink. Large changes pass but for w limit, which fades by w with each frame.

    x        [1, c, h, w], in [0, 1]
    past     the same of the frame before, warped
    trust    [1, 1, h, w] in [0, 1]
    numbers  [2]: w and the limit, on the device of x
    """
    change = x - past
    return x - numbers[0] * trust * change.clamp(-numbers[1], numbers[1])


def fuse_lines(cover: Tensor, past: Tensor, trust: Tensor, numbers: Tensor, coring: bool) -> Tensor:
    """w past + (1 - w) cover with w = weight trust, `cored` if that is wanted, and `as_sharp_as` the cover.

    cover, past  [1, 1, h, w] in [0, 1]: the cover drawn for this frame, and the warped cover of the frame before
    trust        [1, 1, h, w] in [0, 1]
    numbers      [3], on their device: the weight, and the numbers of `cored`
    """
    fused = torch.lerp(cover, past, trust * numbers[0])
    return as_sharp_as(cover, cored(fused, past, trust, numbers[1:]) if coring else fused)


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """Restore the detail in `fused` that fusion has blurred: x + (g - 1) d(x). Both are [1, 1, h, w] in [0, 1].

    d(x) is x minus its mean over 3 x 3 pixels. g is the deviation of d(drawn) over that of d(fused), in [1, 2]. Fusing
    covers that differ by a fraction of a pixel blurs the edges of lines; in a still picture g is 1. Does not wait for
    the device.
    """
    return sharpened_to(fused, fused - _nearby(fused), drawn - _nearby(drawn))


def sharpened_to(fused: Tensor, detail: Tensor, drawn_detail: Tensor) -> Tensor:
    """`as_sharp_as` for given d(fused) and d(drawn)."""
    gain = (drawn_detail.square().mean() / detail.square().mean().clamp_min(1e-8)).sqrt().clamp(1.0, LARGEST_GAIN)
    return torch.addcmul(fused, detail, gain - 1).clamp_(0, 1)


def _nearby(x: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels, [1, 1, h, w], with replicated edges."""
    return avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1)


def _looked_up(rgb: Tensor, table: Tensor) -> Tensor:
    """Map colours by a table, trilinearly. The grid's x is red, since blue is the table's outermost axis."""
    grid = rgb.permute(0, 2, 3, 1)[:, None] * 2 - 1
    volume = table.permute(3, 0, 1, 2)[None]
    return grid_sample(volume, grid, "bilinear", padding_mode="border", align_corners=True)[:, :, 0]
