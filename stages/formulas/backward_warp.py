"""Backward warping: sampling the past at the present's pixels, along a flow field."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from warpfuse.stages.parameters import Mode

GIVEN_BACK = 0.7
"""Factor of t (1 - t) times the second difference in `sharpened`: 0.5 is the Catmull-Rom kernel. With 0.7, pictures
that are warped again and again stay as sharp as with bicubic interpolation (bench/LOG.md)."""


def warp(prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """Warp the past onto the present: out(p) = prev(p + flow(p)).

    prev              [b, c, h, w], floating point
    flow_cur_to_prev  [b, 2, h, w] in pixels of prev, x before y: where each pixel was. Its b may be 1 for any batch
    mode              sharp: bilinear, with the detail that it blurs restored (`sharpened`); as sharp as bicubic, and
                      cheaper on a CPU. bicubic: Keys' kernel with a = -0.75. Both overshoot, so a picture has to be
                      clamped (`warp_picture`)

    Samples outside of the picture get the border's value. Positions are float32 and wrong by at most w 2^-23 px at
    width w. So a zero or integer flow gives the (shifted) input to within that times the local slope, and exactly for
    widths and heights that are powers of two.

    Noise and noisy latents must not be warped: interpolation reduces their variance (to a quarter at half a pixel).

    Raises ValueError when the sizes differ.
    """
    check_sizes(prev, flow_cur_to_prev)
    if mode == "sharp":
        blurred = warp(prev.to(torch.float32), flow_cur_to_prev, "bilinear")
        return sharpened(blurred, flow_cur_to_prev.to(torch.float32)).to(prev.dtype)
    return sampled(prev, grid_of(flow_cur_to_prev), mode)


def grid_of(flow_cur_to_prev: Tensor) -> Tensor:
    """The samples p + flow(p) as `grid_sample` takes them: [b, h, w, 2] float32, in [-1, 1] inside of the picture.

    Pixel p is at (2 p + 1) / size - 1, which is align_corners=False. The other convention divides by size - 1: that is
    0 for a single row, and is not exact for powers of two.
    """
    b, _, h, w = flow_cur_to_prev.shape
    flow = flow_cur_to_prev.to(torch.float32)
    columns = torch.linspace(1 / w - 1, 1 - 1 / w, w, device=flow.device)
    rows = torch.linspace(1 / h - 1, 1 - 1 / h, h, device=flow.device)[:, None]
    grid = torch.empty(b, h, w, 2, device=flow.device)
    torch.add(columns, flow[:, 0], alpha=2 / w, out=grid[..., 0])
    torch.add(rows, flow[:, 1], alpha=2 / h, out=grid[..., 1])
    return grid


def sampled(x: Tensor, grid: Tensor, mode: str) -> Tensor:
    """x [b, c, h, w] at the places of `grid_of`, in the dtype of x. The grid's b may be 1 for any batch."""
    grid = grid.expand(x.shape[0], -1, -1, -1)
    return grid_sample(x.to(torch.float32), grid, mode, padding_mode="border", align_corners=False).to(x.dtype)


def check_sizes(prev: Tensor, flow_cur_to_prev: Tensor) -> None:
    """Raise ValueError when the flow does not have the picture's size."""
    if prev.shape[-2:] != flow_cur_to_prev.shape[-2:]:
        raise ValueError(
            f"warp: the picture is {list(prev.shape)}, the flow {list(flow_cur_to_prev.shape)}: "
            f"bring the flow to the picture's size with resize_flow"
        )


def sharpened(warped: Tensor, flow_cur_to_prev: Tensor) -> Tensor:
    """Restore the detail that bilinear interpolation has blurred in L = `warped` [b, c, h, w], in place.

        out = L + g_x d2L/dx2 + g_y d2L/dy2,      g = -GIVEN_BACK t (1 - t),      t the fraction of the flow

    A cubic through four points differs from the line between the inner two by t (1 - t) / 2 of the second difference.
    Here the second difference is taken after warping instead of before. That is the same where neighbouring pixels move
    together; elsewhere the flow is not trusted. Whole-pixel shifts are unchanged, and so are the first and last rows
    and columns.
    """
    t = flow_cur_to_prev[..., 1:-1, 1:-1].frac().abs_()  # -0.3 means a fraction of 0.7: t (1 - t) is the same
    t = torch.addcmul(t, t, t, value=-1)
    across, down = warped[..., 1:-1, :].diff(n=2), warped[..., 1:-1].diff(n=2, dim=-2)
    inner = warped[..., 1:-1, 1:-1]
    inner.addcmul_(t[:, :1], across, value=-GIVEN_BACK).addcmul_(t[:, 1:], down, value=-GIVEN_BACK)
    return warped


def warp_picture(rgb_prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """`warp` one picture [1, 3, h, w] in [0, 1]. The result is clamped to [0, 1]."""
    return warp(rgb_prev, flow_cur_to_prev, mode).clamp_(0, 1)


def places(flow_cur_to_prev: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows of the samples p + flow(p): [b, h, w] float32 each, pixels."""
    h, w = flow_cur_to_prev.shape[-2:]
    flow = flow_cur_to_prev.to(torch.float32)
    columns = torch.arange(w, dtype=torch.float32, device=flow.device)
    rows = torch.arange(h, dtype=torch.float32, device=flow.device)[:, None]
    return flow[:, 0] + columns, flow[:, 1] + rows


def resize_flow(flow_px: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a flow field [b, 2, h, w] to (h', w'). Its vectors are scaled to the new pixels: x by w'/w, y by h'/h."""
    h, w = flow_px.shape[-2:]
    if (h, w) == tuple(size):
        return flow_px
    up = size[0] >= h and size[1] >= w  # antialiasing averages the vectors for smaller sizes
    flow = interpolate(flow_px, size, mode="bilinear", align_corners=False, antialias=not up)
    return in_pixels_of(flow, flow_px)


def in_pixels_of(flow: Tensor, flow_px: Tensor) -> Tensor:
    """Scale the vectors of `flow`, which is `flow_px` resampled, to its own pixels, in place."""
    (h, w), (new_h, new_w) = flow_px.shape[-2:], flow.shape[-2:]
    flow[:, 0].mul_(new_w / w)
    flow[:, 1].mul_(new_h / h)
    return flow
