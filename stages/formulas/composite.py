"""The finished picture of a bundle that draws lines: paint through a table of inks, and lines over it."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

LARGEST_GAIN = 2.0
"""Of `as_sharp_as`: what is beyond it is noise, not lines."""


def composed(
    paint: Tensor,
    cover: Tensor | None,
    table: Tensor | None,
    ink: tuple[float, float, float],
    lines: float,
    strength: float,
) -> Tensor:
    """p + s lines cover (ink - p) with p = paint + s (table(paint) - paint); paint itself where nothing is laid on it.

    paint     [1, 3, h, w] in [0, 1]
    cover     [1, 1, h, w] in [0, 1], or None for no lines
    table     float32 [n, n, n, 3], blue x green x red -> the colour shown, read trilinearly; or None
    ink       colour of the lines, in [0, 1]
    lines     how much of the lines is laid over the paint, [0, 1]
    strength  s, [0, 1]
    """
    if not strength or (table is None and cover is None):
        return paint
    printed = paint
    if table is not None:
        printed = torch.lerp(paint, _looked_up(paint, table), strength)
    if cover is None:
        return printed
    colour = torch.tensor(ink, device=paint.device)[None, :, None, None]
    return torch.lerp(printed, colour, (strength * lines) * cover)


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """`fused` with the detail that fusion blurred, both [1, 1, h, w] in [0, 1]: x + (g - 1) d(x).

    d(x) is x less its mean over 3 x 3 pixels, g the ratio of deviations of d, 1 to 2. Covers that part by a fraction
    of a pixel blur the edges of lines; in a still picture g is 1. Nothing waits for the device.
    """
    return sharpened_to(fused, fused - _nearby(fused), drawn - _nearby(drawn))


def sharpened_to(fused: Tensor, detail: Tensor, drawn_detail: Tensor) -> Tensor:
    """The second half of `as_sharp_as`: given d(fused) and d(drawn)."""
    gain = (drawn_detail.square().mean() / detail.square().mean().clamp_min(1e-8)).sqrt().clamp(1.0, LARGEST_GAIN)
    return torch.addcmul(fused, detail, gain - 1).clamp_(0, 1)


def _nearby(x: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels, [1, 1, h, w]; the edge goes on."""
    return avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1)


def _looked_up(rgb: Tensor, table: Tensor) -> Tensor:
    """Colours through a table, trilinearly. A grid has x first, which is red here: blue is the outermost axis."""
    grid = rgb.permute(0, 2, 3, 1)[:, None] * 2 - 1
    volume = table.permute(3, 0, 1, 2)[None]
    return grid_sample(volume, grid, "bilinear", padding_mode="border", align_corners=True)[:, :, 0]
