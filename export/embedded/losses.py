"""How far two pictures are apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gradients(rgb: Tensor) -> Tensor:
    """[n,3,h,w] -> [n,6,h-1,w-1]: differences to the right and the lower neighbour."""
    here = rgb[:, :, :-1, :-1]
    return torch.cat([rgb[:, :, :-1, 1:] - here, rgb[:, :, 1:, :-1] - here], 1)


def picture_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """L1, squares and the gradients' L1. The gradients keep edges crisp that L1 alone would give away."""
    difference = rgb - target
    edges = (gradients(rgb) - gradients(target)).abs().mean()
    return difference.abs().mean() + 2.0 * difference.square().mean() + edges


def liveliness_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """The difference in how much the picture moves within 8x8 pixels, whatever the exact lines are; and at half size.

    Where the exact texture cannot be known an L1 loss answers with its mean, a blur; this asks for as much of it as
    the target has.
    """
    total = rgb.new_zeros(())
    for _ in range(2):
        here, there = (nn.functional.avg_pool2d(gradients(p).abs(), 8, 4) for p in (rgb, target))
        total = total + (here - there).abs().mean()
        rgb, target = (nn.functional.avg_pool2d(p, 2) for p in (rgb, target))
    return total


def grid_loss(rgb: Tensor, target: Tensor, cell: int = 8, cells: int = 4) -> Tensor:
    """The part of the error that repeats from cell to cell, within blocks of `cells` x `cells`: a grid on flat ground.

    It is faint against the strokes, so no other loss cares, and the eye sees little else.  h and w are multiples of
    cell * cells.
    """
    error = rgb - target
    n, c, h, w = error.shape
    side = cell * cells
    folded = error.reshape(n, c, h // side, cells, cell, w // side, cells, cell).mean((3, 6))  # [n,c,h/s,8,w/s,8]
    pattern = folded - folded.mean((3, 5), keepdim=True)
    return pattern.abs().mean()


def unsteadiness(here: Tensor, there: Tensor, offset_px: Tensor, border: int = 16) -> Tensor:
    """How far two pictures of one scene, [n,3,h,w] each, are from moving alike: `there` was cut offset_px [n,2] (x, y)
    whole pixels further on.  Whole pixels, for those move without interpolation, so a blur gains nothing.

    What lies within `border` of an edge sees different surroundings and does not count.
    """
    gaps = [
        (torch.roll(a, (-y, -x), (1, 2)) - b)[:, border:-border, border:-border].abs().mean()
        for a, b, (x, y) in zip(here, there, offset_px.tolist(), strict=True)
    ]
    return torch.stack(gaps).mean()
