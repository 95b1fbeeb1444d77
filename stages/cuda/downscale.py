"""Pictures downscaled for the flow and its confidence, on a card."""

import torch
from torch import Tensor

from warpfuse.stages.cuda.kernels import blocks, launch, plain
from warpfuse.stages.formulas.downscale import Size, judged_size

_MOST = 2  # halvings in one kernel


def seen(rgb: Tensor, size: Size, cell: int) -> tuple[Tensor, Tensor]:
    """As `formulas.seen`. The luma may differ by one level."""
    x, halvings = _nearly_halved(rgb, size)
    h, w = x.shape[-2:]
    smaller = judged_size(size, cell)
    more = _halvings((h >> halvings, w >> halvings), smaller)
    gray = torch.empty(size, dtype=torch.uint8, device=rgb.device)
    small: Tensor | None = None
    if halvings + more <= _MOST and (h, w) != smaller:
        small = torch.empty((1, 3, *smaller), device=rgb.device)
    grid = blocks(gray.numel()), 1 if small is None else 4
    launch("seen", grid, x, x, gray, small, h, w, halvings, *size, halvings + more, *smaller)
    if small is not None:
        return gray, small.to(rgb.dtype)
    if (h, w) == smaller:
        return gray, x.to(rgb.dtype)
    return gray, resized(bilinear(x, halvings, (h >> halvings, w >> halvings)), smaller).to(rgb.dtype)


def resized(x: Tensor, size: Size) -> Tensor:
    """As `formulas.resized`."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return bilinear(*_nearly_halved(x, size), size).to(x.dtype)


def bilinear(x: Tensor, halvings: int, size: Size, even: float = 1.0, odd: float = 1.0) -> Tensor:
    """[b, c, h, w] -> [b, c, *size]: halved up to two times, then resized bilinearly, in one kernel. Then channels are
    multiplied by `even` and `odd`, in turn. c is even where these differ."""
    own = plain(x)
    (b, c, h, w), (new_h, new_w) = own.shape, size
    out = torch.empty((b, c, new_h, new_w), device=x.device)
    launch("resize", (blocks(new_h * new_w), b * c), own, own, out, h, w, halvings, new_h, new_w, even, odd)
    return out.to(x.dtype)


def _nearly_halved(x: Tensor, size: Size) -> tuple[Tensor, int]:
    """x halved towards `size` except for the last 0 to 2 times, and how often these are."""
    left = _halvings((x.shape[-2], x.shape[-1]), size)
    x = plain(x)
    while left > _MOST:
        x = bilinear(x, _MOST, (x.shape[-2] >> _MOST, x.shape[-1] >> _MOST))
        left -= _MOST
    return x, left


def _halvings(have: Size, size: Size) -> int:
    """How often both sides can be halved and stay at least `size`."""
    count = 0
    while have[0] >> count >= 2 * size[0] and have[1] >> count >= 2 * size[1]:
        count += 1
    return count
