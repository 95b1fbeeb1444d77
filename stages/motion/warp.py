"""The stage that warps the last styled picture onto the present frame."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.frame import Frame, Latent, Motion, Picture, Stamp
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.stage import Capturable, Opening, Stage


def latent_trust(ops: Arithmetic, trust_pixels: Tensor, downscale: int, settings: WarpSettings) -> Tensor:
    """Reduce the trust of pixels to latent cells: [1, 1, h, w] -> [1, 1, h / downscale, w / downscale], in [0, 1].

    Raises ValueError when h or w is no multiple of downscale.
    """
    return ops.reduce_to_latent(trust_pixels, downscale, settings.cell_norm or math.inf)


def settings_of(config: Any, prompts: object) -> WarpSettings:
    """The stage's settings in a configuration."""
    return config.stages.warp  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """Open the stage."""
    return Warp(opening.config.stages.warp, opening.bundle.about.latent.downscale, opening.device)


class Warp(Stage, Capturable):
    """The stage that warps the last styled picture onto the present frame.

    inputs  motion  motion to the last frame
            styled  the last styled picture or its latent; None before the first. Of a printed picture, the paint
                    replaces the picture, and the cover is warped as well
    output  the warped picture or latent with the trust of the motion. A frame without tensors before the first styled
            picture and after a discontinuity. For a frame held as a repeat, the styled picture unwarped, without trust

    The stage has no state and does not wait for the device.
    """

    def __init__(self, settings: WarpSettings, downscale: int, device: str = "cpu") -> None:
        self._ops = arithmetic(device)
        self._settings = settings
        self._downscale = downscale

    def __call__(self, motion: Motion, styled: Frame | None) -> Frame:
        """Warp one picture or latent. Raises ValueError when the sizes differ or are no multiples of `downscale`."""
        if not isinstance(styled, Latent | Picture) or motion.stamp.discontinuity:
            return Frame(motion.stamp)
        ops, flow, mode = self._ops, motion.flow, self._settings.mode
        trust = latent_trust(ops, motion.trust, self._downscale, self._settings)
        if isinstance(styled, Latent):
            z = styled.z
            return Latent(motion.stamp, ops.warp(z, ops.resize_flow(flow, (z.shape[-2], z.shape[-1])), mode), trust)
        rgb = ops.warp_picture(_paint(styled), flow, mode)
        cover = None if styled.cover is None else ops.warp_picture(styled.cover, flow, "bicubic")
        return Picture(motion.stamp, rgb, cover=cover, trust=motion.trust, cell_trust=trust)

    def held(self, motion: Frame, styled: Frame | None) -> Frame:
        """The styled picture as it is for a repeat, else warped."""
        if isinstance(motion, Motion):
            return self(motion, styled)
        match styled:
            case Picture() if not motion.stamp.discontinuity:
                return Picture(motion.stamp, _paint(styled), cover=styled.cover)
            case Latent() if not motion.stamp.discontinuity:
                return Latent(motion.stamp, styled.z)
            case _:
                return Frame(motion.stamp)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable:
        """See `Capturable`."""
        return self._settings

    def update(self, settings: WarpSettings) -> None:
        """Take new settings, from the next frame on."""
        self._settings = settings


def _paint(styled: Picture) -> Tensor:
    """The picture to be warped: the paint of a printed picture, else the picture itself."""
    return styled.rgb if styled.paint is None else styled.paint
