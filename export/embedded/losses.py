"""Losses between pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CALM = 8.0


def gradients(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """[n,c,h,w] -> two of [n,c,h-1,w-1]: differences of the right and the lower neighbour."""
    here = rgb[:, :, :-1, :-1]
    return rgb[:, :, :-1, 1:] - here, rgb[:, :, 1:, :-1] - here


def picture_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """L1, squares, and L1 of gradients, which keeps edges sharp."""
    difference = rgb - target
    return difference.abs().mean() + 2.0 * difference.square().mean() + _mean_size(gradients(difference))


def paint_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """L1, and L1 of gradients."""
    difference = rgb - target
    return difference.abs().mean() + _mean_size(gradients(difference))


def composite_loss(picture: Tensor, target: Tensor, source: Tensor, cover: Tensor) -> Tensor:
    """`paint_loss` of finished pictures [n,3,h,w], with weight two on the lines in cover [n,1,h,w], and where the
    source has texture and the target is flat, since that texture has to be removed.

    Gradients have CALM more weight on flat ground, since mottle is weak compared with lines, but very visible.
    """
    moves = nn.functional.avg_pool2d(_activity(source), 3, 1, 1)
    still = nn.functional.max_pool2d(_activity(target), 3, 1, 1)
    flat = ((moves - 0.02) / 0.04).clamp(0.0, 1.0) * ((0.03 - still) / 0.02).clamp(0.0, 1.0)
    weight = 1.0 + cover + flat
    difference = weight * (picture - target)
    steady = weight + CALM * ((0.015 - still) / 0.010).clamp(0.0, 1.0)
    across, down = (steady[:, :, :-1, :-1] * g for g in gradients(picture - target))
    return difference.abs().mean() + _mean_size((across, down))


def cover_loss(cover: Tensor, target: Tensor) -> Tensor:
    """L1 of covers [n,1,h,w], with weight four on full lines, since they are few."""
    return ((1.0 + 3.0 * target) * (cover - target).abs()).mean()


def _activity(rgb: Tensor) -> Tensor:
    across, down = (g.abs().mean(1, keepdim=True) for g in gradients(rgb))
    return nn.functional.pad(across + down, (0, 1, 0, 1)) / 2.0


def _mean_size(steps: tuple[Tensor, Tensor]) -> Tensor:
    return (steps[0].abs().mean() + steps[1].abs().mean()) / 2.0


def grid_loss(rgb: Tensor, target: Tensor, cell: int = 8, cells: int = 4) -> Tensor:
    """L1 of the part of the error that repeats in all cells of a block of `cells` x `cells`, which shows as a grid.

    The grid is weak compared with strokes, so other losses hardly see it, but it is very visible. h and w have to be
    multiples of cell * cells.
    """
    error = rgb - target
    n, c, h, w = error.shape
    side = cell * cells
    folded = error.reshape(n, c, h // side, cells, cell, w // side, cells, cell).mean((3, 6))  # [n,c,h/s,8,w/s,8]
    pattern = folded - folded.mean((3, 5), keepdim=True)
    return pattern.abs().mean()


def unsteadiness(here: Tensor, there: Tensor, offset_px: Tensor, border: int = 16) -> Tensor:
    """L1 between two pictures of a scene, [n,3,h,w] each, after aligning them: `there` was cropped offset_px [n,2]
    (x, y) further on. The offset is in whole pixels, which need no interpolation, so that blurring does not help.

    Pixels within `border` of an edge have different surroundings and are not counted.
    """
    gaps = [
        (torch.roll(a, (-y, -x), (1, 2)) - b)[:, border:-border, border:-border].abs().mean()
        for a, b, (x, y) in zip(here, there, offset_px.tolist(), strict=True)
    ]
    return torch.stack(gaps).mean()
