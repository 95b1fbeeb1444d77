"""Pull the past onto the present: warping by a flow field, and the stage that warps the last styled picture."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from warpfuse.stages.cpu.opencv import resize_area, resize_bilinear, sample
from warpfuse.stages.cpu.warp import pull_picture
from warpfuse.stages.frame import Frame
from warpfuse.stages.motion.confidence import reduce_to_latent
from warpfuse.stages.settings import StageSettings

Mode = Literal["sharp", "bicubic", "bilinear", "nearest"]

_OPENCV: dict[Mode, int] = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}
_GIVEN_BACK = 0.7
"""Share of t (1 - t) times the second difference: 0.5 is Catmull and Rom's kernel. Pictures that are pulled again and
again stay as sharp with 0.7 as by bicubic (bench/LOG.md)."""


def warp(prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """out(p) = prev(p + flow(p)): pull the past onto the present.

    prev              [b, c, h, w], floating point, any device
    flow_cur_to_prev  [b, 2, h, w] in pixels of prev, x before y: where the pixel was. b may be 1 for any batch
    mode              sharp is bilinear with what that blurs given back (`sharpened`): as sharp as bicubic, and
                      cheaper on a CPU. bicubic has Keys' kernel with a = -0.75. Both overshoot: who holds a picture
                      clamps it

    Outside, the border pixel goes on. Positions are float32: at width w they are off by at most w 2^-23 px, so a zero
    or integer flow gives the (shifted) input to within that times the local slope, and exactly for widths and heights
    that are powers of two. On a CPU all but nearest go through OpenCV where that is as exact (integer flows are
    then exact shifts at any size) and several times as fast; the two agree to 1e-4 on pictures in [0, 1].
    Never warp noise, or a noisy latent: interpolation takes its variance away (half a pixel leaves a quarter).
    Raises ValueError when the sizes differ.
    """
    if prev.shape[-2:] != flow_cur_to_prev.shape[-2:]:
        raise ValueError(
            f"warp: the picture is {list(prev.shape)}, the flow {list(flow_cur_to_prev.shape)}: "
            f"bring the flow to the picture's size with resize_flow"
        )
    if mode == "sharp":
        return _sharp(prev, flow_cur_to_prev)
    h, w = prev.shape[-2:]
    x, y = _places(flow_cur_to_prev)
    if mode in _OPENCV and prev.device.type == "cpu" and _remap_is_exact():
        return sample(prev, x.numpy(), y.numpy(), _OPENCV[mode])
    # Pixel p is at (2 p + 1) / size - 1: align_corners=False, here and in the sampler. The other convention divides
    # by size - 1, which is 0 for a line, and is not exact at powers of two.
    grid = torch.stack(((2 * x + 1) / w - 1, (2 * y + 1) / h - 1), dim=-1).expand(prev.shape[0], -1, -1, -1)
    out = grid_sample(prev.to(torch.float32), grid, mode, padding_mode="border", align_corners=False)
    return out.to(prev.dtype)


def _sharp(prev: Tensor, flow_cur_to_prev: Tensor) -> Tensor:
    """Mode sharp: bilinear, with what that blurs given back."""
    blurred = warp(prev.to(torch.float32), flow_cur_to_prev, "bilinear")
    return sharpened(blurred, flow_cur_to_prev.to(torch.float32), _GIVEN_BACK).to(prev.dtype)


def sharpened(pulled: Tensor, flow_cur_to_prev: Tensor, given_back: float) -> Tensor:
    """`pulled` [b, c, h, w], read bilinearly, with what was blurred given back; first and last rows and columns as is.

        out = L + g_x d2L/dx2 + g_y d2L/dy2,      g = -given_back t (1 - t),      t the fraction of the flow

    A cubic through four points is the line between the two inner ones less t (1 - t) / 2 of the second difference. That
    is taken here where the picture has come to, not where it comes from, which is the same where neighbours move
    together; where they do not, nothing is trusted. At whole pixels it is nothing.
    """
    t = flow_cur_to_prev[..., 1:-1, 1:-1].frac().abs_()  # -0.3 is 0.7 of the pixel before: t (1 - t) is the same
    g = given_back * t * (1 - t)
    own = pulled[..., 1:-1, 1:-1]
    across = 2 * own - pulled[..., 1:-1, :-2] - pulled[..., 1:-1, 2:]
    down = 2 * own - pulled[..., :-2, 1:-1] - pulled[..., 2:, 1:-1]
    out = pulled.clone()
    out[..., 1:-1, 1:-1] += g[:, :1] * across + g[:, 1:] * down
    return out


def warp_picture(rgb_prev: Tensor, flow_cur_to_prev: Tensor, mode: Mode = "sharp") -> Tensor:
    """`warp` of one picture [1, 3, h, w] in [0, 1], held there. On a CPU sharp is exact to half a 255th, and faster."""
    at_home = rgb_prev.device.type == "cpu" and rgb_prev.shape[:2] == (1, 3) and min(rgb_prev.shape[-2:]) > 1
    if mode == "sharp" and at_home and rgb_prev.shape[-2:] == flow_cur_to_prev.shape[-2:]:
        return pull_picture(rgb_prev, flow_cur_to_prev, _GIVEN_BACK)
    return warp(rgb_prev, flow_cur_to_prev, mode).clamp_(0, 1)


def warp_together(fields: Sequence[Tensor], flow_cur_to_prev: Tensor) -> list[Tensor]:
    """Each [1, c, h, w] as `warp` pulls it, bilinear; where to read from is worked out once for all of them."""
    pulled = warp(torch.cat(list(fields), dim=1), flow_cur_to_prev, "bilinear")
    return list(torch.split(pulled, [field.shape[1] for field in fields], dim=1))


def _places(flow_cur_to_prev: Tensor) -> tuple[Tensor, Tensor]:
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
    up, down = size[0] >= h and size[1] >= w, size[0] <= h and size[1] <= w
    if flow_px.device.type == "cpu" and (up or down):
        flow = resize_bilinear(flow_px, size) if up else resize_area(flow_px, size)
    else:  # antialias averages the vectors when going down; going up it is plain bilinear
        flow = interpolate(flow_px, size, mode="bilinear", align_corners=False, antialias=not up)
    flow[:, 0].mul_(size[1] / w)
    flow[:, 1].mul_(size[0] / h)
    return flow


class WarpSettings(StageSettings):
    """Settings of `Warp`.

    mode       how the picture is read between pixels; a picture pulled again and again goes soft with bilinear
    cell_norm  1 or more: how the trust of a latent cell is made of that of its pixels (`trust.reduce_to_latent`); null
               takes the least of them, and steadies less: cells on the edge of what is covered are left out
    """

    mode: Mode = "sharp"
    cell_norm: Annotated[float, Field(ge=1)] | None = 2.0


def latent_trust(trust_pixels: Tensor, downscale: int, settings: WarpSettings) -> Tensor:
    """[1, 1, h, w] -> [1, 1, h / downscale, w / downscale] in [0, 1]: the trust of each latent cell.

    Raises ValueError when h or w is no multiple of downscale.
    """
    return reduce_to_latent(trust_pixels, downscale, settings.cell_norm or math.inf)


class Warp:
    """The stage that pulls what was made of the last frame onto this one.

    Inputs of a call:
        motion  Frame with "flow" [1, 2, h, w] in pixels (current to previous) and "trust" [1, 1, h, w] in [0, 1]
        styled  Frame with "rgb" [1, 3, h, w] in [0, 1], the last styled picture, or with "latent" [1, c, h', w'], its
                latent; None as long as there is none. Of a printed picture (`diffusion/composite.py`) "paint" is
                taken in the place of "rgb", and its "cover" [1, 1, h, w] beside
    Returns a Frame with the stamp of motion and
        rgb           [1, 3, h, w] in [0, 1], the styled picture where its things are now; or
        latent        [1, c, h', w'], the latent where they are; h' = h / downscale, w' likewise
        cover         [1, 1, h, w] in [0, 1], where there was one
        trust         [1, 1, h', w'] in [0, 1], of each latent cell
        trust_pixels  [1, 1, h, w] in [0, 1], as motion has it
    or with no tensors where there is nothing to refer to: nothing styled yet, or a discontinuity. A frame that is held
    as a repeat gets what was styled as it is, and no trust.
    It keeps no state and waits for no device.
    """

    inputs = ("motion", "styled")

    def __init__(self, settings: WarpSettings, downscale: int) -> None:
        self._settings = settings
        self._downscale = downscale

    def __call__(self, *frames: Any) -> Frame:
        """Warp one picture or latent. Raises ValueError when the sizes differ or are no multiples of `downscale`."""
        motion, styled = frames
        if styled is None or motion.stamp.discontinuity:
            return Frame(motion.stamp, {})
        if motion.stamp.hold == "repeat":
            return Frame(motion.stamp, _memory(styled))
        flow, trust_pixels = motion["flow"], motion["trust"]
        trust = latent_trust(trust_pixels, self._downscale, self._settings)
        trusts = {"trust": trust, "trust_pixels": trust_pixels}
        if "latent" in styled.tensors:
            z = styled["latent"]
            pulled = warp(z, resize_flow(flow, (z.shape[-2], z.shape[-1])), self._settings.mode)
            return Frame(motion.stamp, {"latent": pulled, **trusts})
        memory = _memory(styled)
        rgb = warp_picture(memory["rgb"], flow, self._settings.mode)
        cover = {"cover": warp(memory["cover"], flow, "bicubic").clamp_(0, 1)} if "cover" in memory else {}
        return Frame(motion.stamp, {"rgb": rgb, **cover, **trusts})

    def update(self, settings: WarpSettings) -> None:
        """Take new settings, from the next frame on."""
        self._settings = settings

    def close(self) -> None:
        """Nothing is held."""


def _memory(styled: Frame) -> Mapping[str, Tensor]:
    """What the next frame is made from: the paint of a printed picture and its cover, or the picture itself."""
    if "paint" not in styled.tensors:
        return styled.tensors
    return {"rgb" if name == "paint" else name: x for name, x in styled.tensors.items() if name != "rgb"}


@cache
def _remap_is_exact() -> bool:
    """Whether this OpenCV's sampling uses the position it is given: up to 4.x it rounds to 1/32 px, 5.0 does not."""
    ramp = np.arange(16, dtype=np.float32)[None].repeat(16, axis=0)
    x, y = np.meshgrid(np.arange(16, dtype=np.float32) + np.float32(0.01), np.arange(16, dtype=np.float32))
    out = cv2.remap(ramp, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    # of a ramp, Keys' kernel with a = -0.75 makes f + f/2 - 3/2 f^2 + f^3 of a fraction f, not f itself
    return bool(abs(float(out[8, 8]) - 8 - 0.014851) < 1e-4)
