"""Confidence masks: how far the warped past may be believed, pixel by pixel. 1 is fully, 0 not at all.

Pure functions, without a wait for the device in them.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from warpfuse.stages.formulas.backward_warp import warp
from warpfuse.stages.parameters import Check, Limits


def confidence(
    flow_cur_to_prev: Tensor, flow_prev_to_cur: Tensor | None, cur: Tensor, prev: Tensor, limits: Limits
) -> tuple[Tensor, Tensor]:
    """(confidence, coverage): inside the frame, of the same colour, and consistent with the backward flow.

    flow_cur_to_prev  f [b, 2, h, w] px
    flow_prev_to_cur  [b, 2, h, w] px, where it lies; None: it is not checked
    cur, prev         [b, c, h, w] in [0, 1], where they lie

    confidence  [b, 1, h, w] in [0, 1]
    coverage    [b] in [0, 1]: its mean
    """
    prev_warped, back_warped = warp(prev, flow_cur_to_prev, "bilinear"), None
    m = inside(flow_cur_to_prev) * photometric(cur, prev_warped, limits.photometric, limits.softness)
    if flow_prev_to_cur is not None and limits.check != "off":
        back_warped = warp(flow_prev_to_cur, flow_cur_to_prev, "bilinear")
        m = m * consistent(flow_cur_to_prev, back_warped, limits.check, limits.slope, limits.offset)
    return m, m.mean(dim=(1, 2, 3))


def grown(confidence: Tensor, dilate_px: int, feather_px: int) -> Tensor:
    """Confidence [b, 1, h, w] after doubt has grown by `dilate_px` and been blurred over `feather_px`."""
    return feather(dilate_distrust(confidence, dilate_px), feather_px)


def consistent(
    flow_cur_to_prev: Tensor,
    back_warped: Tensor,
    check: Check = "squared",
    slope: float = 0.01,
    offset: float = 0.5,
) -> Tensor:
    """1 where going back and forth returns to the pixel, else 0: [b, 1, h, w] float32. See `Limits.check`.

    back_warped  b(p) = flow_prev_to_cur(p + f(p)), [b, 2, h, w] px: minus f where the two agree

    (Sundaram, Brox and Keutzer 2010, eq. 5 is the squared form. At 20 px of motion it allows 2.9 px, the other 0.9.)
    """
    f, b = flow_cur_to_prev, back_warped
    gap2 = (f + b).square().sum(1, keepdim=True)
    f2, b2 = f.square().sum(1, keepdim=True), b.square().sum(1, keepdim=True)
    if check == "squared":
        return (gap2 <= slope * (f2 + b2) + offset).to(torch.float32)
    return (gap2.sqrt() <= slope * (f2.sqrt() + b2.sqrt()) + offset).to(torch.float32)


def photometric(cur: Tensor, prev_warped: Tensor, threshold: float, softness: float = 0.0) -> Tensor:
    """1 where the mean |cur - prev_warped| over the channels is up to threshold, 0 from (1 + softness) threshold on.

    Linear in between; [b, 1, h, w] float32. Pictures in [0, 1].
    """
    gap = (cur - prev_warped).abs().mean(1, keepdim=True)
    if softness == 0:
        return (gap <= threshold).to(torch.float32)
    return ((1 + softness) / softness - gap / (softness * threshold)).clamp(0, 1).to(torch.float32)


def inside(flow_cur_to_prev: Tensor) -> Tensor:
    """1 where p + flow(p) lies on the frame (pixel centres 0 .. size - 1, half a pixel more each way), else 0."""
    h, w = flow_cur_to_prev.shape[-2:]
    columns = torch.arange(w, device=flow_cur_to_prev.device) - (w - 1) / 2  # from the middle: one comparison, not two
    rows = torch.arange(h, device=flow_cur_to_prev.device)[:, None] - (h - 1) / 2
    x, y = flow_cur_to_prev[:, :1] + columns, flow_cur_to_prev[:, 1:] + rows
    return ((x.abs_() <= w / 2) & (y.abs_() <= h / 2)).to(torch.float32)


def dilate_distrust(trust: Tensor, radius: int) -> Tensor:
    """Each pixel takes the least trust of the square of side 2 radius + 1 around it; [b, 1, h, w]."""
    if radius == 0:
        return trust
    side = 2 * radius + 1
    distrust = max_pool2d(1 - trust, (1, side), 1, (0, radius))
    return 1 - max_pool2d(distrust, (side, 1), 1, (radius, 0))


def feather(trust: Tensor, radius: int) -> Tensor:
    """Blur with a separable binomial kernel that reaches `radius` pixels; [b, 1, h, w], the frame's edge goes on.

    After `dilate_distrust` by at least the same radius no pixel is trusted more than before both.
    """
    if radius == 0:
        return trust
    row = binomial(radius)
    kernel = row.to(trust.device, trust.dtype, non_blocking=True)
    out = conv2d(pad(trust, (radius, radius, 0, 0), "replicate"), kernel.view(1, 1, 1, -1))
    out = conv2d(pad(out, (0, 0, radius, radius), "replicate"), kernel.view(1, 1, -1, 1))
    return out.clamp(0, 1)


@cache
def binomial(radius: int) -> Tensor:
    """The kernel's taps, 2 radius + 1 of them, float64; read-only by agreement."""
    row = torch.ones(1, dtype=torch.float64)
    for _ in range(2 * radius):
        row = (pad(row, (0, 1)) + pad(row, (1, 0))) / 2
    return row


def reduce_to_latent(trust: Tensor, factor: int, norm: float = math.inf) -> Tensor:
    """[b, 1, h, w] -> [b, 1, h / factor, w / factor]: how far a latent cell may be trusted.

        trust = 1 - ( mean over the cell of (1 - trust)^norm )^(1 / norm)

    norm  1 is the mean; infinite is min-pooling, a cell is trusted as its least trusted pixel; with 2 a cell a quarter
          of which is distrusted is trusted by half

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
    """[1, 3, h, w] in [0, 1] -> [512], summing to 1: eight shades of each channel. float32.

    every  step between the pixels that are counted, each way
    """
    shade = (rgb[0, :, ::every, ::every] * 8).clamp_(0, 7).to(torch.uint8).to(torch.int32)
    index = (shade[0] * 64 + shade[1] * 8 + shade[2]).flatten()
    ones = torch.ones_like(index, dtype=torch.float32)
    return torch.zeros(512, device=rgb.device).index_add_(0, index, ones) / index.numel()


def same_shot(
    coverage: Tensor, colours: Tensor, colours_prev: Tensor, cut_coverage: float, cut_colour: float
) -> Tensor:
    """1.0 unless the frame is the first of another shot, then 0.0; a float32 scalar tensor to multiply trust with.

    A cut is coverage below `cut_coverage` and colours further apart than `cut_colour`, both: fast motion and covered
    cameras have the first, a lamp or an exposure that changes has the second. Colours are of `colour_histogram`, their
    distance is half the L1 norm.
    """
    distance = (colours - colours_prev).abs().sum() / 2
    return 1 - ((coverage < cut_coverage) & (distance > cut_colour)).to(torch.float32).reshape(())
