"""Correlations of all pairs of cells of two pictures, and looking them up around a flow (RAFT, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .raft_layers import LEVELS, RADIUS


def pyramids_both_ways(features: Tensor, features_other: Tensor) -> list[Tensor]:
    """Features [b,c,h,w] each -> LEVELS of [2b, h*w, h/2^l, w/2^l]: first from one to the other, then back.

    The backward correlations are the forward ones transposed, so one matrix product serves both.
    """
    b, c, h, w = features.shape
    there = features.flatten(2).transpose(1, 2) @ features_other.flatten(2) / c**0.5
    levels = [torch.cat((there, there.transpose(1, 2))).reshape(2 * b, h * w, h, w)]
    for _ in range(LEVELS - 1):
        levels.append(avg_pool2d(levels[-1], 2))
    return levels


def look_up(pyramid: Sequence[Tensor], position: Tensor) -> Tensor:
    """Windows around `position` at every level: [b, h*w, h_l, w_l] and [b,2,h,w] cells -> [b, LEVELS*7*7, h, w].

    Read by `windows`; the offset in x is the slower index.
    """
    b, _, h, w = position.shape
    read = torch.stack([windows(c, position / 2**level, RADIUS) for level, c in enumerate(pyramid)], dim=2)
    return read.permute(0, 2, 4, 3, 1).reshape(b, -1, h, w)


def windows(correlation: Tensor, position: Tensor, radius: int) -> Tensor:
    """[b, h*w, h', w'] read around `position` [b,2,h,w] (x, y) -> [b, h*w, 2 radius + 1 of y, 2 radius + 1 of x].

    Bilinear, 0 outside. All samples of a window are a whole number of cells apart, so a window is two small matrix
    products, hat(y - j) C hat(x - i)^T with hat(d) = max(0, 1 - |d|). So no gather or GridSample is needed, which are
    slow or differ between runtimes, and no division by a size that may be 1.
    """
    x, y = position.flatten(2).transpose(1, 2).unsqueeze(-1).unbind(2)  # [b, hw, 1] each
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=position.device)
    rows, columns = _hat(y + offsets, correlation.shape[2]), _hat(x + offsets, correlation.shape[3])
    return rows @ correlation @ columns.transpose(2, 3)


def _hat(at: Tensor, cells: int) -> Tensor:
    """Positions [b, hw, 7] -> [b, hw, 7, cells]: weight of each cell in linear interpolation at the position."""
    return (1 - (at.unsqueeze(-1) - torch.arange(cells, dtype=torch.float32, device=at.device)).abs()).relu()
