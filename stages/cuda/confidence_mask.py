"""Confidence masks on a card: one kernel judges all pixels, another dilates, blurs and finds cuts."""

import math

import torch
from torch import Tensor

from warpfuse.stages import formulas
from warpfuse.stages.cuda.kernels import blocks, launch, plain
from warpfuse.stages.formulas.confidence_mask import PictureColours, dilate_distrust, feather, same_shot
from warpfuse.stages.formulas.confidence_mask import reduce_to_latent as _reduced
from warpfuse.stages.parameters import Cut, Limits

REACH = 8  # longest radius of the kernel `grown`, as in confidence_mask.cu
_TILE = 16
_CHECKS = ("off", "squared", "norm")


def confidence(
    flow_cur_to_prev: Tensor, flow_prev_to_cur: Tensor | None, cur: Tensor, prev: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """As `formulas.confidence`."""
    m, sums = _judged(flow_cur_to_prev, flow_prev_to_cur, None, cur, prev, limits)
    return m, (sums.sum(1) / m[0].numel()).to(torch.float32)


def grown(confidence: Tensor, dilate_px: int, feather_px: int) -> Tensor:
    """As `formulas.grown`."""
    if not dilate_px and not feather_px:
        return confidence
    if max(dilate_px, feather_px) > REACH:
        return formulas.grown(confidence, dilate_px, feather_px)
    return _grown(confidence, dilate_px, feather_px, None, None, None, Cut(0.0, 0.0))


def trusted(
    flow_cur_to_prev: Tensor,
    flow_prev_to_cur: Tensor | None,
    unique: Tensor | None,
    cur: PictureColours,
    prev: PictureColours,
    limits: Limits,
    growth: tuple[int, int],
    cut: Cut,
) -> Tensor:
    """As `formulas.trusted`."""
    m, sums = _judged(flow_cur_to_prev, flow_prev_to_cur, unique, cur.rgb, prev.rgb, limits)
    if max(growth) > REACH:
        m = feather(dilate_distrust(m, growth[0]), growth[1])
        coverage = (sums.sum(1) / m[0].numel()).to(torch.float32)
        return m.mul_(same_shot(coverage, cur.colours, prev.colours, *cut))
    return _grown(m, *growth, sums, cur.colours, prev.colours, cut)


def reduce_to_latent(trust: Tensor, factor: int, norm: float = math.inf) -> Tensor:
    """As `formulas.reduce_to_latent`."""
    b, c, h, w = trust.shape
    if h % factor or w % factor:
        return _reduced(trust, factor, norm)  # says what is wrong
    x = plain(trust)
    out = torch.empty((b, c, h // factor, w // factor), device=trust.device)
    grid = blocks(out[0, 0].numel()), b * c
    launch("reduce_to_latent", grid, x, x, out, h, w, factor, 0.0 if norm == math.inf else float(norm))
    return out.to(trust.dtype)


def colour_histogram(rgb: Tensor, every: int = 1) -> Tensor:
    """As `formulas.colour_histogram`."""
    x = plain(rgb)
    out = torch.empty(512, device=rgb.device)
    launch("colour_histogram", (1,), x, x, out, *x.shape[-2:], every)
    return out


def _judged(
    flow: Tensor, back: Tensor | None, unique: Tensor | None, cur: Tensor, prev: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """The confidence [b, 1, h, w], times `unique`, and float64 sums of it without that: [b, blocks]."""
    f, ours, theirs = plain(flow), plain(cur), plain(prev)
    back = None if back is None else plain(back)
    unique = None if unique is None else plain(unique)
    b, c, h, w = ours.shape
    out = torch.empty((b, 1, h, w), device=f.device)
    sums = torch.empty((b, blocks(h * w)), dtype=torch.float64, device=f.device)
    check = 0 if back is None else _CHECKS.index(limits.check)
    most = c * limits.photometric  # the kernel sums the differences over the channels instead of averaging them
    numbers = float(limits.slope), float(limits.offset), float(most), float(limits.softness * most)
    fields = f, back if check else None, ours, theirs, unique
    launch("confidence", (blocks(h * w), b), f, *fields, out, sums, c, h, w, check, *numbers)
    return out, sums


def _grown(
    m: Tensor, dilate: int, feather: int, sums: Tensor | None, colours: Tensor | None, before: Tensor | None, cut: Cut
) -> Tensor:
    x = plain(m)
    b, c, h, w = x.shape
    out = torch.empty_like(x)
    counts = 0 if sums is None else sums.numel(), 0 if colours is None else colours.numel()
    grid = blocks(w, _TILE), blocks(h, _TILE), b * c
    arguments = x, out, h, w, dilate, feather, sums, counts[0], colours, before, counts[1]
    launch("grown", grid, x, *arguments, float(cut.coverage), float(cut.colour))
    return out.to(m.dtype)
