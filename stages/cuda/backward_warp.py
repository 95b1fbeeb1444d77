"""Backward warping on a card, in one kernel for all channels."""

import torch
from torch import Tensor

from warpfuse.stages import formulas
from warpfuse.stages.cuda.downscale import bilinear
from warpfuse.stages.cuda.kernels import blocks, launch, plain
from warpfuse.stages.formulas.backward_warp import GIVEN_BACK, check_sizes
from warpfuse.stages.parameters import Mode


def warp(prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """As `formulas.warp`. An integer flow is an exact shift at any size."""
    return _warped(prev, flow_cur_to_prev, mode, clamped=False)


def warp_picture(rgb_prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """As `formulas.warp_picture`."""
    return _warped(rgb_prev, flow_cur_to_prev, mode, clamped=True)


def resize_flow(flow_px: Tensor, size: tuple[int, int]) -> Tensor:
    """As `formulas.resize_flow`."""
    (h, w), (new_h, new_w) = flow_px.shape[-2:], size
    if (h, w) == (new_h, new_w):
        return flow_px
    if new_h < h or new_w < w:
        return formulas.resize_flow(flow_px, size)
    return bilinear(flow_px, 0, size, new_w / w, new_h / h)


def _warped(prev: Tensor, flow: Tensor, mode: Mode, clamped: bool) -> Tensor:
    check_sizes(prev, flow)
    if mode == "nearest":
        out = formulas.warp(prev, flow, mode)
        return out.clamp_(0, 1) if clamped else out
    x, field = plain(prev), plain(flow)
    b, c, h, w = x.shape
    out = torch.empty_like(x)
    numbers: list[float] = [] if mode == "bicubic" else [GIVEN_BACK if mode == "sharp" else 0.0]
    row = 2 * h * w if len(field) > 1 else 0
    kernel = "warp_bicubic" if mode == "bicubic" else "warp"
    launch(kernel, (blocks(h * w), b), x, x, field, out, c, h, w, row, *numbers, int(clamped))
    return out.to(prev.dtype)
