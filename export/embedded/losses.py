"""How far two pictures are apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CALM = 3.0


def gradients(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """[n,c,h,w] -> two of [n,c,h-1,w-1]: differences to the right and to the lower neighbour."""
    here = rgb[:, :, :-1, :-1]
    return rgb[:, :, :-1, 1:] - here, rgb[:, :, 1:, :-1] - here


def picture_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """L1, squares and the gradients' L1. The gradients keep edges crisp that L1 alone would give away."""
    difference = rgb - target
    return difference.abs().mean() + 2.0 * difference.square().mean() + _mean_size(gradients(difference))


def paint_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """L1, and the gradients' L1."""
    difference = rgb - target
    return difference.abs().mean() + _mean_size(gradients(difference))


def composite_loss(picture: Tensor, target: Tensor, source: Tensor, cover: Tensor) -> Tensor:
    """`paint_loss` of finished pictures [n,3,h,w], weighted twice on the lines of cover [n,1,h,w], and twice where the
    source moves and the target is flat: there all that the source says has to be left out.

    Gradients count CALM times more on flat ground: mottle is faint beside lines, and the eye sees little else.
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
    """L1 of covers [n,1,h,w], four times as much on full lines as beside them: they are few."""
    return ((1.0 + 3.0 * target) * (cover - target).abs()).mean()


def _activity(rgb: Tensor) -> Tensor:
    across, down = (g.abs().mean(1, keepdim=True) for g in gradients(rgb))
    return nn.functional.pad(across + down, (0, 1, 0, 1)) / 2.0


def _mean_size(steps: tuple[Tensor, Tensor]) -> Tensor:
    return (steps[0].abs().mean() + steps[1].abs().mean()) / 2.0


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
