"""Tables of SIDE^3 colours, from the colour of paint to its printed colour, for trilinear interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .painters.styles import Painter

SIDE = 33

Table = NDArray[np.uint8]  # [SIDE,SIDE,SIDE,3]: [r][g][b] -> colour


def ink_table(painter: Painter) -> Table | None:
    """The table of a style; None: its paint is not changed."""
    if painter.inked is None:
        return None
    axis = np.linspace(0.0, 1.0, SIDE, dtype=np.float32)
    colours = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    inked = painter.inked(colours.reshape(SIDE, SIDE * SIDE, 3)).reshape(colours.shape)
    return (inked * 255.0 + 0.5).astype(np.uint8)


def stacked(painters: Sequence[Painter]) -> Tensor:
    """Tables for `looked_up`, [S,3,SIDE,SIDE,SIDE] (b, g, r) in [0,1]. Styles without a table get the identity."""
    axis = np.linspace(0.0, 255.0, SIDE)
    unchanged = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    tables = [unchanged if (table := ink_table(p)) is None else table for p in painters]
    return torch.from_numpy(np.stack(tables)).permute(0, 4, 3, 2, 1).float().div_(255.0).contiguous()


def looked_up(rgb: Tensor, tables: Tensor) -> Tensor:
    """rgb [n,3,h,w] in [0,1] mapped by tables [n,3,SIDE,SIDE,SIDE] from `stacked`, one for each. Differentiable."""
    at = rgb.permute(0, 2, 3, 1)[:, None] * 2.0 - 1.0
    sampled = nn.functional.grid_sample(tables, at, padding_mode="border", align_corners=True)
    return sampled[:, :, 0]
