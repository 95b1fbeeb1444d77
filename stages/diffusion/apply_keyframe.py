"""Laying a keyframe over the picture: a frame that the user painted, warped along the flow."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.frame import Frame, Motion, Picture, Stamp
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.stage import Capturable, Opening, Stage


def settings_of(config: Any, prompts: object) -> WarpSettings:
    """The settings of this stage in a configuration."""
    return config.stages.warp  # type: ignore[no-any-return]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return ApplyKeyframe(opening.config.stages.warp, opening.device)


class ApplyKeyframe(Stage, Capturable):
    """The styled picture with the keyframe over it. The result is fused into the next frame.

    inputs  picture  the styled picture
            anchor   motion to the frame of the keyframe, with the keyframe; without one the picture passes unchanged
            past     the last picture, warped, and its trust; optional
    gives   w key + (1 - w) [v past + (1 - v) picture],   w = share trust,   v = w trust of the past

    Where w is 0 the result equals the picture bit for bit. In a still scene the difference from the keyframe is
    multiplied by (1 - w)^2 at the second frame: at a share of 0.95 it is within 1/255 then. Fusion in the latent cannot
    reach that, since the autoencoder loses more. Paint and cover of a printed picture are blended likewise, so that no
    lines are drawn over the keyframe.
    """

    def __init__(self, settings: WarpSettings, device: str = "cpu") -> None:
        self._ops = arithmetic(device)
        self._mode = settings.mode

    def __call__(self, picture: Picture, anchor: Frame, past: Frame | None = None) -> Picture:
        """The picture with the keyframe over it, by two warps."""
        if not isinstance(anchor, Motion) or anchor.painted is None or anchor.share is None:
            return picture
        key = self._ops.warp_picture(anchor.painted, anchor.flow, self._mode)
        w = self._ops.warp(anchor.share.contiguous(), anchor.flow, "bilinear") * anchor.trust
        before, v = None, w
        if isinstance(past, Picture) and past.trust is not None:
            before, v = past.rgb, w * past.trust

        def covered(under: Tensor) -> Tensor:
            return torch.lerp(under if before is None else torch.lerp(under, before, v), key, w)

        paint = None if picture.paint is None else covered(picture.paint)
        cover = None if picture.cover is None else picture.cover * (1 - w)
        return Picture(picture.stamp, covered(picture.rgb), paint, cover)

    def held(self, picture: Frame, anchor: Frame, past: Frame | None = None) -> Frame:
        """The picture unchanged: it was warped with the keyframe in it."""
        return picture

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable:
        """See `Capturable`."""
        return self._mode

    def update(self, settings: WarpSettings) -> None:
        """Use new settings from the next frame on."""
        self._mode = settings.mode
