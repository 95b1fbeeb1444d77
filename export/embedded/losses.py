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
    """The difference in how much the picture moves within 8x8 pixels, whatever the exact lines are.

    Where the exact texture cannot be known an L1 loss answers with its mean, a blur; this asks for as much of it as
    the target has.
    """
    here, there = (nn.functional.avg_pool2d(gradients(p).abs(), 8, 4) for p in (rgb, target))
    return (here - there).abs().mean()
