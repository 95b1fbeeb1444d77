"""Confidence masks: how far each pixel of the warped past may be trusted, from 0 (not at all) to 1 (fully).

Pure functions. None of them waits for the device.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from warpfuse.stages.formulas.backward_warp import grid_of, sampled
from warpfuse.stages.parameters import Check, Cut, Limits


class PictureColours(NamedTuple):
    """A picture at the size of the confidence, [1, 3, h, w] in [0, 1], and its `colour_histogram`."""

    rgb: Tensor
    colours: Tensor


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
    """The trust of a frame's flow, [1, 1, h, w] in [0, 1]: `confidence` times `unique`, then `grown`.

    It is 0 everywhere for the first frame of another shot (`same_shot`).

    unique  [1, 1, h, w]: 0 where the flow is not trusted, else 1; None: all 1
    growth  dilate_px and feather_px of `grown`
    """
    judged = confidence(flow_cur_to_prev, flow_prev_to_cur, cur.rgb, prev.rgb, limits)
    return in_shot(judged, unique, cur, prev, growth, cut, grown)


def in_shot(
    judged: tuple[Tensor, Tensor],
    unique: Tensor | None,
    cur: PictureColours,
    prev: PictureColours,
    growth: tuple[int, int],
    cut: Cut,
    grow: Callable[[Tensor, int, int], Tensor],
) -> Tensor:
    """`trusted` for the results of `confidence`, the first of which is changed. grow: `grown`."""
    m, coverage = judged
    if unique is not None:
        m.mul_(unique)
    return grow(m, *growth).mul_(same_shot(coverage, cur.colours, prev.colours, *cut))


def confidence(
    flow_cur_to_prev: Tensor, flow_prev_to_cur: Tensor | None, cur: Tensor, prev: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """Confidence of a flow, and its mean. A pixel is trusted if it was inside the last frame, its colour matches and
    the flow is consistent with the backward flow.

    flow_cur_to_prev  f [b, 2, h, w] px
    flow_prev_to_cur  backward flow [b, 2, h, w] px, not warped; None: no consistency check
    cur, prev         pictures [b, c, h, w] in [0, 1], not warped

    Returns the confidence [b, 1, h, w] in [0, 1] and the coverage [b] in [0, 1], which is its mean.
    """
    grid = grid_of(flow_cur_to_prev)
    m = photometric(cur, sampled(prev, grid, "bilinear"), limits.photometric, limits.softness)
    m = m * (torch.linalg.vector_norm(grid, torch.inf, dim=-1)[:, None] <= 1)  # inside
    if flow_prev_to_cur is not None and limits.check != "off":
        back_warped = sampled(flow_prev_to_cur, grid, "bilinear")
        m = m * consistent(flow_cur_to_prev, back_warped, limits.check, limits.slope, limits.offset)
    return m, m.mean(dim=(1, 2, 3))


def grown(confidence: Tensor, dilate_px: int, feather_px: int) -> Tensor:
    """Confidence [b, 1, h, w] with low values dilated by `dilate_px` and then blurred over `feather_px`."""
    return feather(dilate_distrust(confidence, dilate_px), feather_px)


def consistent(
    flow_cur_to_prev: Tensor,
    back_warped: Tensor,
    check: Check = "squared",
    slope: float = 0.01,
    offset: float = 0.5,
) -> Tensor:
    """Forward-backward check: 1 where f and the backward flow b agree, else 0: [b, 1, h, w] float32. See `Limits`.

    back_warped  b(p) = flow_prev_to_cur(p + f(p)), [b, 2, h, w] px; it is -f(p) where the two agree exactly

    The squared form is eq. 5 of Sundaram, Brox and Keutzer 2010. At 20 px of motion it allows 2.9 px, the norm 0.9 px.
    """
    f, b = flow_cur_to_prev, back_warped
    gap2 = (f + b).square().sum(1, keepdim=True)
    f2, b2 = f.square().sum(1, keepdim=True), b.square().sum(1, keepdim=True)
    if check == "squared":
        return (gap2 <= slope * (f2 + b2) + offset).to(torch.float32)
    return (gap2.sqrt() <= slope * (f2.sqrt() + b2.sqrt()) + offset).to(torch.float32)


def photometric(cur: Tensor, prev_warped: Tensor, threshold: float, softness: float = 0.0) -> Tensor:
    """Photometric check: 1 where the mean |cur - prev_warped| over the channels is at most `threshold`.

    It falls linearly to 0 at (1 + softness) threshold. Pictures in [0, 1]; [b, 1, h, w] float32.
    """
    apart: Tensor = torch.linalg.vector_norm(cur - prev_warped, 1, dim=1, keepdim=True)
    most = threshold * cur.shape[1]  # of the sum over the channels
    if softness == 0:
        return (apart <= most).to(torch.float32)
    return torch.rsub(apart, (1 + softness) / softness, alpha=1 / (softness * most)).clamp_(0, 1).to(torch.float32)


def inside(flow_cur_to_prev: Tensor) -> Tensor:
    """1 where p + flow(p) lies inside the frame, which reaches from -0.5 to size - 0.5, else 0: [b, 1, h, w]."""
    h, w = flow_cur_to_prev.shape[-2:]
    columns = torch.arange(w, device=flow_cur_to_prev.device) - (w - 1) / 2  # from the centre, for a single comparison
    rows = torch.arange(h, device=flow_cur_to_prev.device)[:, None] - (h - 1) / 2
    x, y = flow_cur_to_prev[:, :1] + columns, flow_cur_to_prev[:, 1:] + rows
    return ((x.abs_() <= w / 2) & (y.abs_() <= h / 2)).to(torch.float32)


def dilate_distrust(trust: Tensor, radius: int) -> Tensor:
    """Erode the trust: the minimum over the square of side 2 radius + 1 around each pixel; [b, 1, h, w]."""
    if radius == 0:
        return trust
    return 1 - max_pool2d(1 - trust, 2 * radius + 1, 1, radius)


def feather(trust: Tensor, radius: int) -> Tensor:
    """Blur with a separable binomial kernel that reaches `radius` pixels, with replicated edges; [b, 1, h, w].

    After `dilate_distrust` by at least the same radius, no pixel has more trust than before the two.
    """
    if radius == 0:
        return trust
    out = pad(trust, (radius,) * 4, "replicate")
    for _ in range(2 * radius):  # the kernel is that of the mean of 2 x 2, so many times: no taps go to the device
        out = avg_pool2d(out, 2, 1)
    return out


@cache
def binomial(radius: int) -> Tensor:
    """The 2 radius + 1 taps of the kernel, float64; read-only by convention, since they are cached."""
    row = torch.ones(1, dtype=torch.float64)
    for _ in range(2 * radius):
        row = (pad(row, (0, 1)) + pad(row, (1, 0))) / 2
    return row


def reduce_to_latent(trust: Tensor, factor: int, norm: float = math.inf) -> Tensor:
    """Reduce the trust of pixels to latent cells: [b, 1, h, w] -> [b, 1, h / factor, w / factor].

        trust = 1 - ( mean over the cell of (1 - trust)^norm )^(1 / norm)

    norm  1: the mean; infinity: the minimum over the pixels; 2: a cell with a quarter of its pixels at 0 and the others
          at 1 gets 0.5

    Raises ValueError when h or w is no multiple of factor.
    """
    h, w = trust.shape[-2:]
    if h % factor or w % factor:
        raise ValueError(f"trust of {w}x{h} cannot be reduced by {factor}: width and height must be multiples of it")
    if norm == math.inf:
        return -max_pool2d(-trust, factor)
    powers = 1 - trust
    powers = powers.square_() if norm == 2 else powers.pow_(norm)
    return 1 - avg_pool2d(powers, factor).pow(1 / norm)


def colour_histogram(rgb: Tensor, every: int = 1) -> Tensor:
    """Histogram of eight shades in each channel: [1, 3, h, w] in [0, 1] -> float32 [512], summing to 1.

    every  step between the counted pixels, in both directions
    """
    shade = (rgb[0, :, ::every, ::every] * 8).clamp_(0, 7).to(torch.int32)
    index = shade[2].add(shade[1], alpha=8).add_(shade[0], alpha=64).flatten()
    ones = torch.ones_like(index, dtype=torch.float32)
    return torch.zeros(512, device=rgb.device).index_add_(0, index, ones) / index.numel()


def same_shot(
    coverage: Tensor, colours: Tensor, colours_prev: Tensor, cut_coverage: float, cut_colour: float
) -> Tensor:
    """False for the first frame of another shot, else True: a tensor of one, to multiply the trust by.

    A frame is the first of another shot if its coverage is below `cut_coverage` and its colours differ by more than
    `cut_colour`. Either alone is no cut: fast motion or a covered camera lowers the coverage, a lamp or a change of
    exposure changes the colours. Colours are from `colour_histogram`; their distance is half the L1 norm.
    """
    return (coverage >= cut_coverage) | (torch.dist(colours, colours_prev, 1) <= 2 * cut_colour)
