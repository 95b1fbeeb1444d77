"""The stage that warps what was made of the last frame onto this one."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.formulas.confidence_mask import reduce_to_latent
from warpfuse.stages.frame import Frame
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.stage import Opening, Stage


def latent_trust(trust_pixels: Tensor, downscale: int, settings: WarpSettings) -> Tensor:
    """[1, 1, h, w] -> [1, 1, h / downscale, w / downscale] in [0, 1]: the trust of each latent cell.

    Raises ValueError when h or w is no multiple of downscale.
    """
    return reduce_to_latent(trust_pixels, downscale, settings.cell_norm or math.inf)


def settings_of(config: Any, prompts: object) -> WarpSettings:
    """Those of a configuration."""
    return config.stages.warp  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Warp(opening.config.stages.warp, opening.bundle.about.latent.downscale, opening.device)


class Warp(Stage):
    """The stage that warps what was made of the last frame onto this one.

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

    def __init__(self, settings: WarpSettings, downscale: int, device: str = "cpu") -> None:
        self._ops = arithmetic(device)
        self._settings = settings
        self._downscale = downscale

    def __call__(self, motion: Frame, styled: Frame | None) -> Frame:
        """Warp one picture or latent. Raises ValueError when the sizes differ or are no multiples of `downscale`."""
        if styled is None or motion.stamp.discontinuity:
            return Frame(motion.stamp, {})
        ops = self._ops
        flow, trust_pixels = motion["flow"], motion["trust"]
        trust = latent_trust(trust_pixels, self._downscale, self._settings)
        trusts = {"trust": trust, "trust_pixels": trust_pixels}
        if "latent" in styled.tensors:
            z = styled["latent"]
            warped = ops.warp(z, ops.resize_flow(flow, (z.shape[-2], z.shape[-1])), self._settings.mode)
            return Frame(motion.stamp, {"latent": warped, **trusts})
        memory = _memory(styled)
        rgb = ops.warp_picture(memory["rgb"], flow, self._settings.mode)
        cover = {"cover": ops.warp(memory["cover"], flow, "bicubic").clamp_(0, 1)} if "cover" in memory else {}
        return Frame(motion.stamp, {"rgb": rgb, **cover, **trusts})

    def held(self, motion: Frame, styled: Frame | None) -> Frame:
        """What was styled as it is for a repeat, else warped."""
        if motion.stamp.hold == "repeat" and styled is not None and not motion.stamp.discontinuity:
            return Frame(motion.stamp, _memory(styled))
        return self(motion, styled)

    def update(self, settings: WarpSettings) -> None:
        """Take new settings, from the next frame on."""
        self._settings = settings


def _memory(styled: Frame) -> Mapping[str, Tensor]:
    """What the next frame is made from: the paint of a printed picture and its cover, or the picture itself."""
    if "paint" not in styled.tensors:
        return styled.tensors
    return {"rgb" if name == "paint" else name: x for name, x in styled.tensors.items() if name != "rgb"}
