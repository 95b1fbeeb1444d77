"""What every kind of mask has in common: held steady along the flow, turned round, and softened at its edge."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from warpfuse.stages.arithmetic import Arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Mask, Motion, Picture
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.stage import Stage

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


class FoundMask(Stage, ABC):
    """What is found in each frame, held steady along the flow.

    inputs  frame   what it is found in
            motion  to the frame before. Where the graph feeds it
    gives   the mask. Of a held frame that of the frame before, warped; nothing for a repeat
    """

    def __init__(self, ops: Arithmetic, settings: MaskSettings) -> None:
        self._ops = ops
        self._settings = settings
        self._memory = SteadyMask(ops)

    @abstractmethod
    def find(self, frame: Picture) -> Tensor:
        """[1, 1, h, w] in [0, 1]."""

    def __call__(self, frame: Picture, motion: Frame | None = None) -> Mask:
        """The mask of one frame."""
        return self._finished(frame, self._memory.fuse(self.find(frame), motion, self._settings.steady))

    def held(self, frame: Frame, motion: Frame | None = None) -> Frame:
        """The mask of the frame before, warped."""
        if frame.stamp.hold == "repeat":
            return Frame(frame.stamp)
        warped = self._memory.follow(motion)
        if warped is not None:
            return self._finished(frame, warped)
        return self(frame, motion) if isinstance(frame, Picture) else Frame(frame.stamp)

    def update(self, settings: MaskSettings) -> None:
        """Take new settings, from the next frame on. What is remembered stays."""
        self._settings = settings

    def _finished(self, frame: Frame, mask: Tensor) -> Mask:
        return Mask(frame.stamp, finished(mask, self._settings, self._ops))


def finished(mask: Tensor, settings: MaskSettings, ops: Arithmetic) -> Tensor:
    """The mask as it is laid over the picture: turned round and feathered where the settings say so."""
    mask = ((mask - 0.5) * (1 + 2 * _ENDS) + 0.5).clamp(0, 1)
    if settings.invert:
        mask = 1 - mask
    if settings.feather_px:
        mask = ops.grown(mask, 0, settings.feather_px)
        mask = ((mask - 0.5) * (1 + 1e-5) + 0.5).clamp_(0, 1)  # the taps of the blur add up to 1 but for rounding
    return mask
