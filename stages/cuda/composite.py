"""Paint, colour table and lines composed on a card."""

import torch
from torch import Tensor

from warpfuse.stages.cuda.kernels import CHUNK, blocks, launch, plain
from warpfuse.stages.formulas.composite import LARGEST_GAIN


def composed(paint: Tensor, cover: Tensor | None, table: Tensor | None, shares: Tensor) -> Tensor:
    """As `formulas.composed`."""
    if table is None and cover is None:
        return paint
    x = plain(paint)
    n, side = x[0, 0].numel(), 0 if table is None else table.shape[0]
    laid, colours = None if cover is None else plain(cover), None if table is None else plain(table)
    out = torch.empty_like(x)
    launch("composed", (blocks(n),), x, x, laid, colours, plain(shares), out, n, side)
    return out.to(paint.dtype)


def cored(x: Tensor, past: Tensor, trust: Tensor, numbers: Tensor) -> Tensor:
    """As `formulas.cored`."""
    own, n = plain(x), x[0, 0].numel()
    out = torch.empty_like(own)
    given = own, plain(past), plain(trust), plain(numbers)
    launch("cored", (blocks(n),), own, *given, out, own.shape[1], n)
    return out.to(x.dtype)


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """As `formulas.as_sharp_as`."""
    wanted, own = plain(drawn), plain(fused)
    h, w = own.shape[-2:]
    grid = (blocks(h * w, CHUNK),)
    energies = torch.empty((grid[0], 2), dtype=torch.float64, device=fused.device)
    out = torch.empty_like(own)
    launch("detail_energies", grid, own, wanted, own, energies, h, w)
    launch("as_sharp_as", grid, own, own, energies, out, h, w, LARGEST_GAIN)
    return out.to(fused.dtype)
