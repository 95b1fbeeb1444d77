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


def fuse_lines(cover: Tensor, past: Tensor, trust: Tensor, numbers: Tensor, coring: bool) -> Tensor:
    """As `formulas.fuse_lines`."""
    own = plain(cover)
    return _sharpened(own, own, (plain(past), plain(trust), plain(numbers)), coring).to(cover.dtype)


def as_sharp_as(drawn: Tensor, fused: Tensor) -> Tensor:
    """As `formulas.as_sharp_as`."""
    return _sharpened(plain(drawn), plain(fused), (None, None, None), False).to(fused.dtype)


def _sharpened(
    drawn: Tensor, x: Tensor, fused: tuple[Tensor | None, Tensor | None, Tensor | None], coring: bool
) -> Tensor:
    """x as sharp as `drawn`. fused: the past, its trust and the numbers of `fuse_lines`, by which x is fused first."""
    h, w = x.shape[-2:]
    grid = (blocks(h * w, CHUNK),)
    energies = torch.empty((grid[0], 2), dtype=torch.float64, device=x.device)
    out = torch.empty_like(x)
    launch("detail_energies", grid, x, drawn, x, *fused, energies, h, w, int(coring))
    launch("as_sharp_as", grid, x, x, *fused, energies, out, h, w, int(coring), LARGEST_GAIN)
    return out
