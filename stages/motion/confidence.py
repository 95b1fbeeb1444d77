"""How far the warped past may be believed, pixel by pixel: 1 is fully, 0 not at all.

Pure functions on one device, without a wait in them. They take the past already pulled onto the present
(`warp.warp`), so one pull serves the backward flow and the picture together.
"""

import math
from functools import cache
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from warpfuse.stages.cpu import latents, luma
from warpfuse.stages.cpu.opencv import cell_mean, each_plane
from warpfuse.stages.settings import StageSettings


class TrustSettings(StageSettings):
    """How trust is made from a flow field and its inverse.

    check         squared  |f + b|^2 <= slope (|f|^2 + |b|^2) + offset      offset in px^2
                  norm     |f + b|   <= slope (|f| + |b|) + offset          offset in px; over-flags fast motion
                  off      no forward-backward check
    slope         of the check above, without unit
    offset        of the check above, at the size the flow is computed at
    photometric   mean |current - pulled previous| up to which a pixel is believed, in [0, 1]; 1 switches it off
    softness      trust falls to 0 on the way from `photometric` to (1 + softness) photometric; 0 is a hard edge
    dilate_px     radius by which distrust grows, pixels of the flow's size: flow is wrong around what is covered
    feather_px    radius of the blur that follows, so that no seam shows; up to dilate_px it gives no trust back
    cut_coverage  a frame less of which than this is believed is a scene cut if its colours changed as well, [0, 1]
    cut_colour    distance of the colour histograms from which on they have, [0, 1]
    """

    check: Literal["squared", "norm", "off"] = "squared"
    slope: float = Field(0.01, ge=0)
    offset: float = Field(0.5, ge=0)
    photometric: float = Field(0.12, gt=0, le=1)
    softness: float = Field(0.5, ge=0, le=10)
    dilate_px: int = Field(2, ge=0, le=64)
    feather_px: int = Field(2, ge=0, le=64)
    cut_coverage: float = Field(0.2, ge=0, le=1)
    cut_colour: float = Field(0.2, ge=0, le=1)

    def at(self, scale: float) -> "TrustSettings":
        """The same for a flow in pixels of `scale` times the size: what is a length is so much of one there."""
        return self if scale == 1 else _scaled(self, scale)

    def unchecked(self) -> "TrustSettings":
        """The same without a forward-backward check."""
        return _unchecked(self)


@cache
def _unchecked(settings: TrustSettings) -> TrustSettings:
    return settings.model_copy(update={"check": "off"})


@cache
def _scaled(settings: TrustSettings, scale: float) -> TrustSettings:
    feather_px = math.ceil(settings.feather_px * scale)
    lengths = {
        "offset": settings.offset * (scale if settings.check == "norm" else scale * scale),
        "dilate_px": math.ceil(settings.dilate_px * scale),
        "feather_px": max(0, feather_px - 1) if scale < 1 else feather_px,  # trust is brought up again, which blurs it
    }
    return settings.model_copy(update=lengths)


def trust(
    flow_cur_to_prev: Tensor,
    back_pulled: Tensor,
    cur: Tensor,
    prev_pulled: Tensor,
    settings: TrustSettings,
    undisputed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """All of it: (trust, coverage).

    flow_cur_to_prev  f [b, 2, h, w] px
    back_pulled       b(p) = flow_prev_to_cur(p + f(p)), [b, 2, h, w] px: minus f where the two agree
    cur, prev_pulled  [b, c, h, w] in [0, 1]; the previous picture at p + f(p)
    undisputed        [b, 1, h, w], 0 where nothing is to be believed, else 1; None is 1 everywhere

    trust     [b, 1, h, w] in [0, 1], grown and feathered
    coverage  [b] in [0, 1]: mean of the trust before that, of what is disputed too
    """
    m = inside(flow_cur_to_prev) * photometric(cur, prev_pulled, settings.photometric, settings.softness)
    if settings.check != "off":
        m = m * consistent(flow_cur_to_prev, back_pulled, settings.check, settings.slope, settings.offset)
    return grown(m if undisputed is None else m * undisputed, settings), m.mean(dim=(1, 2, 3))


def grown(believed: Tensor, settings: TrustSettings) -> Tensor:
    """What is believed, [b, 1, h, w], after distrust has grown and been feathered."""
    return feather(dilate_distrust(believed, settings.dilate_px), settings.feather_px)


def consistent(
    flow_cur_to_prev: Tensor,
    back_pulled: Tensor,
    check: Literal["squared", "norm"] = "squared",
    slope: float = 0.01,
    offset: float = 0.5,
) -> Tensor:
    """1 where going back and forth returns to the pixel, else 0: [b, 1, h, w] float32. See TrustSettings.check.

    (Sundaram, Brox and Keutzer 2010, eq. 5 is the squared form. At 20 px of motion it allows 2.9 px, the other 0.9.)
    """
    f, b = flow_cur_to_prev, back_pulled
    gap2 = (f + b).square().sum(1, keepdim=True)
    f2, b2 = f.square().sum(1, keepdim=True), b.square().sum(1, keepdim=True)
    if check == "squared":
        return (gap2 <= slope * (f2 + b2) + offset).to(torch.float32)
    return (gap2.sqrt() <= slope * (f2.sqrt() + b2.sqrt()) + offset).to(torch.float32)


def photometric(cur: Tensor, prev_pulled: Tensor, threshold: float, softness: float = 0.0) -> Tensor:
    """1 where the mean |cur - prev_pulled| over the channels is up to threshold, 0 from (1 + softness) threshold on.

    Linear in between; [b, 1, h, w] float32. Pictures in [0, 1].
    """
    gap = (cur - prev_pulled).abs().mean(1, keepdim=True)
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
    if trust.device.type == "cpu":
        square = np.ones((side, side), np.uint8)
        return each_plane(trust, lambda plane, out: cv2.erode(plane, square, out))
    distrust = max_pool2d(1 - trust, (1, side), 1, (0, radius))
    return 1 - max_pool2d(distrust, (side, 1), 1, (radius, 0))


def feather(trust: Tensor, radius: int) -> Tensor:
    """Blur with a separable binomial kernel that reaches `radius` pixels; [b, 1, h, w], the frame's edge goes on.

    After `dilate_distrust` by at least the same radius no pixel is trusted more than before both.
    """
    if radius == 0:
        return trust
    row = _binomial(radius)
    if trust.device.type == "cpu":
        taps = row.numpy()
        edge = cv2.BORDER_REPLICATE
        blurred = each_plane(trust, lambda plane, out: cv2.sepFilter2D(plane, -1, taps, taps, out, borderType=edge))
        return blurred.clamp_(0, 1)
    kernel = row.to(trust.device, trust.dtype, non_blocking=True)
    out = conv2d(pad(trust, (radius, radius, 0, 0), "replicate"), kernel.view(1, 1, 1, -1))
    out = conv2d(pad(out, (0, 0, radius, radius), "replicate"), kernel.view(1, 1, -1, 1))
    return out.clamp(0, 1)


@cache
def _binomial(radius: int) -> Tensor:
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
    if norm == 2 and latents.takes(trust):
        return latents.cell_trust(trust, factor)
    powers = 1 - trust
    powers = powers.square_() if norm == 2 else powers.pow_(norm)
    means = cell_mean(powers, factor) if powers.device.type == "cpu" else avg_pool2d(powers, factor)
    return 1 - means.pow(1 / norm)


def colour_histogram(rgb: Tensor, every: int = 1) -> Tensor:
    """[1, 3, h, w] in [0, 1] -> [512], summing to 1: eight shades of each channel. float32.

    every  so manieth pixel each way is counted
    """
    if rgb.device.type == "cpu":
        return luma.colour_histogram(rgb, every)
    shade = (rgb[0, :, ::every, ::every] * 8).clamp_(0, 7).to(torch.uint8).to(torch.int32)
    index = (shade[0] * 64 + shade[1] * 8 + shade[2]).flatten()
    ones = torch.ones_like(index, dtype=torch.float32)
    return torch.zeros(512, device=rgb.device).index_add_(0, index, ones) / index.numel()


_SAME = torch.tensor(1.0)


def same_shot(coverage: Tensor, colours: Tensor, colours_prev: Tensor, settings: TrustSettings) -> Tensor:
    """1.0 unless the frame is the first of another shot, then 0.0; a float32 scalar tensor to multiply trust with.

    A cut is little coverage and other colours, both: fast motion and covered cameras have the first, a lamp or an
    exposure that changes has the second. Colours are of `colour_histogram`, their distance is half the L1 norm.
    """
    if coverage.device.type == "cpu" and float(coverage) >= settings.cut_coverage:
        return _SAME
    distance = _apart(colours, colours_prev)
    return 1 - ((coverage < settings.cut_coverage) & (distance > settings.cut_colour)).to(torch.float32).reshape(())


def _apart(colours: Tensor, colours_prev: Tensor) -> Tensor:
    return (colours - colours_prev).abs().sum() / 2
