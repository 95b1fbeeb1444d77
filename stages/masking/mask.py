"""What every kind of mask has in common: held steady along the flow, turned round, and softened at its edge."""

from typing import Any

import torch
from torch import Tensor

from warpfuse.stages.arithmetic import Arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Motion
from warpfuse.stages.masking.settings import MaskSettings

_ENDS = 1 / 128
"""What is nearer than this to 0 or 1 is 0 or 1: a network is never sure, and a source that shines through unseen is
still not the styled picture to the bit."""


def settings_of(config: Any, prompts: object) -> MaskSettings:
    """Those of a configuration."""
    return config.mask  # type: ignore[no-any-return]


class SteadyMask:
    """The mask of the frame before, and what follows from it for this one.

        m = w m_prev(p + flow(p)) + (1 - w) m_found,     w = steady trust

    A mask is [1, 1, h, w] float32 in [0, 1].
    """

    def __init__(self, ops: Arithmetic) -> None:
        self._ops = ops
        self._past: Tensor | None = None

    def fuse(self, found: Tensor, motion: Frame | None, steady: float) -> Tensor:
        """The mask of this frame, from what was found in it. motion: to the frame before; none: no past."""
        past = self._warped(motion)
        if past is not None and isinstance(motion, Motion) and past.shape == found.shape:
            found = torch.lerp(found, past, steady * motion.trust)
        self._past = owned(found)
        return found

    def follow(self, motion: Frame | None) -> Tensor | None:
        """The mask of a frame in which nothing is looked for: the one before, warped. None before the first."""
        warped = self._warped(motion)
        if warped is not None:
            self._past = warped
        return self._past

    def _warped(self, motion: Frame | None) -> Tensor | None:
        if self._past is None or not isinstance(motion, Motion) or motion.stamp.discontinuity:
            return None
        return self._ops.warp(self._past, motion.flow, "bilinear").clamp_(0, 1)


def finished(mask: Tensor, settings: MaskSettings, ops: Arithmetic) -> Tensor:
    """The mask as it is laid over the picture: turned round and feathered where the settings say so."""
    mask = ((mask - 0.5) * (1 + 2 * _ENDS) + 0.5).clamp(0, 1)
    if settings.invert:
        mask = 1 - mask
    if settings.feather_px:
        mask = ops.grown(mask, 0, settings.feather_px)
        mask = ((mask - 0.5) * (1 + 1e-5) + 0.5).clamp_(0, 1)  # the taps of the blur add up to 1 but for rounding
    return mask
