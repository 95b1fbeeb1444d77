"""Backward warping: the past pulled onto the present along a flow field."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from warpfuse.stages.parameters import Mode

GIVEN_BACK = 0.7
"""Share of t (1 - t) times the second difference: 0.5 is Catmull and Rom's kernel. Pictures that are pulled again and
again stay as sharp with 0.7 as by bicubic (bench/LOG.md)."""


def warp(prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """out(p) = prev(p + flow(p)): pull the past onto the present.

    prev              [b, c, h, w], floating point
    flow_cur_to_prev  [b, 2, h, w] in pixels of prev, x before y: where the pixel was. b may be 1 for any batch
    mode              sharp is bilinear with what that blurs given back (`sharpened`): as sharp as bicubic, and
                      cheaper on a CPU. bicubic has Keys' kernel with a = -0.75. Both overshoot: who holds a picture
                      clamps it

    Outside, the border pixel goes on. Positions are float32: at width w they are off by at most w 2^-23 px, so a zero
    or integer flow gives the (shifted) input to within that times the local slope, and exactly for widths and heights
    that are powers of two.
    Never warp noise, or a noisy latent: interpolation takes its variance away (half a pixel leaves a quarter).
    Raises ValueError when the sizes differ.
    """
    check_sizes(prev, flow_cur_to_prev)
    if mode == "sharp":
        blurred = warp(prev.to(torch.float32), flow_cur_to_prev, "bilinear")
        return sharpened(blurred, flow_cur_to_prev.to(torch.float32)).to(prev.dtype)
    h, w = prev.shape[-2:]
    x, y = places(flow_cur_to_prev)
    # Pixel p is at (2 p + 1) / size - 1: align_corners=False, here and in the sampler. The other convention divides
    # by size - 1, which is 0 for a line, and is not exact at powers of two.
    grid = torch.stack(((2 * x + 1) / w - 1, (2 * y + 1) / h - 1), dim=-1).expand(prev.shape[0], -1, -1, -1)
    out = grid_sample(prev.to(torch.float32), grid, mode, padding_mode="border", align_corners=False)
    return out.to(prev.dtype)


def check_sizes(prev: Tensor, flow_cur_to_prev: Tensor) -> None:
    """Raises ValueError when the flow is not of the picture's size."""
    if prev.shape[-2:] != flow_cur_to_prev.shape[-2:]:
        raise ValueError(
            f"warp: the picture is {list(prev.shape)}, the flow {list(flow_cur_to_prev.shape)}: "
            f"bring the flow to the picture's size with resize_flow"
        )


def sharpened(warped: Tensor, flow_cur_to_prev: Tensor) -> Tensor:
    """`warped` [b, c, h, w], read bilinearly, with what was blurred given back; first and last rows and columns as is.

        out = L + g_x d2L/dx2 + g_y d2L/dy2,      g = -GIVEN_BACK t (1 - t),      t the fraction of the flow

    A cubic through four points is the line between the two inner ones less t (1 - t) / 2 of the second difference. That
    is taken here where the picture has come to, not where it comes from, which is the same where neighbours move
    together; where they do not, nothing is trusted. At whole pixels it is nothing.
    """
    t = flow_cur_to_prev[..., 1:-1, 1:-1].frac().abs_()  # -0.3 is 0.7 of the pixel before: t (1 - t) is the same
    g = GIVEN_BACK * t * (1 - t)
    own = warped[..., 1:-1, 1:-1]
    across = 2 * own - warped[..., 1:-1, :-2] - warped[..., 1:-1, 2:]
    down = 2 * own - warped[..., :-2, 1:-1] - warped[..., 2:, 1:-1]
    out = warped.clone()
    out[..., 1:-1, 1:-1] += g[:, :1] * across + g[:, 1:] * down
    return out


def warp_picture(rgb_prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """`warp` of one picture [1, 3, h, w] in [0, 1], held there."""
    return warp(rgb_prev, flow_cur_to_prev, mode).clamp_(0, 1)


def places(flow_cur_to_prev: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows to read from, [b, h, w] float32 each."""
    h, w = flow_cur_to_prev.shape[-2:]
    flow = flow_cur_to_prev.to(torch.float32)
    columns = torch.arange(w, dtype=torch.float32, device=flow.device)
    rows = torch.arange(h, dtype=torch.float32, device=flow.device)[:, None]
    return flow[:, 0] + columns, flow[:, 1] + rows


def resize_flow(flow_px: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a flow field [b, 2, h, w] to size (h', w'), its vectors to the new pixels: x times w'/w, y times h'/h."""
    h, w = flow_px.shape[-2:]
    if (h, w) == tuple(size):
        return flow_px
    up = size[0] >= h and size[1] >= w  # antialias averages the vectors when going down; going up it is bilinear
    flow = interpolate(flow_px, size, mode="bilinear", align_corners=False, antialias=not up)
    return in_pixels_of(flow, flow_px)


def in_pixels_of(flow: Tensor, flow_px: Tensor) -> Tensor:
    """`flow`, which is `flow_px` resampled, with its vectors brought to the new pixels, in place."""
    (h, w), (new_h, new_w) = flow_px.shape[-2:], flow.shape[-2:]
    flow[:, 0].mul_(new_w / w)
    flow[:, 1].mul_(new_h / h)
    return flow
