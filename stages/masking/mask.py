"""Common parts of all kinds of masks: smoothing in time along the flow, inversion, and feathering."""

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
"""Values nearer than this to 0 or 1 become 0 or 1. Networks never give exactly these, and then the result would differ
from the styled picture or the source by an invisible share of the other."""


def settings_of(config: Any, prompts: object) -> MaskSettings:
    """The settings of these stages in a configuration."""
    return config.mask  # type: ignore[no-any-return]


class SteadyMask:
    """A mask that is smoothed in time along the flow. It keeps the mask of the frame before.

        m = w m_prev(p + flow(p)) + (1 - w) m_found,     w = steady trust

    A mask is [1, 1, h, w] float32 in [0, 1].
    """

    def __init__(self, ops: Arithmetic) -> None:
        self._ops = ops
        self._past: Tensor | None = None

    def fuse(self, found: Tensor, motion: Frame | None, steady: float) -> Tensor:
        """The mask of this frame, from the mask found in it. motion: to the frame before; None: it is not smoothed."""
        past = self._warped(motion)
        if past is not None and isinstance(motion, Motion) and past.shape == found.shape:
            found = torch.lerp(found, past, steady * motion.trust)
        self._past = owned(found)
        return found

    def follow(self, motion: Frame | None) -> Tensor | None:
        """The mask of a held frame: the mask of the frame before, warped. None before the first mask."""
        warped = self._warped(motion)
        if warped is not None:
            self._past = warped
        return self._past

    def _warped(self, motion: Frame | None) -> Tensor | None:
        if self._past is None or not isinstance(motion, Motion) or motion.stamp.discontinuity:
            return None
        return self._ops.warp(self._past, motion.flow, "bilinear").clamp_(0, 1)


class FoundMask(Stage, ABC):
    """A mask that is found in each frame and smoothed in time along the flow.

    inputs  frame   the picture in which it is found
            motion  to the frame before; optional
    gives   the mask; for a held frame that of the frame before, warped; for a repeated frame a bare `Frame`
    """

    def __init__(self, ops: Arithmetic, settings: MaskSettings) -> None:
        self._ops = ops
        self._settings = settings
        self._memory = SteadyMask(ops)

    @abstractmethod
    def find(self, frame: Picture) -> Tensor:
        """Find the mask in a picture, [1, 1, h, w] in [0, 1]."""

    def __call__(self, frame: Picture, motion: Frame | None = None) -> Mask:
        """The mask of one frame."""
        return self._finished(frame, self._memory.fuse(self.find(frame), motion, self._settings.steady))

    def held(self, frame: Frame, motion: Frame | None = None) -> Frame:
        """The mask of the frame before, warped; a bare frame for a repeated frame."""
        if frame.stamp.hold == "repeat":
            return Frame(frame.stamp)
        warped = self._memory.follow(motion)
        if warped is not None:
            return self._finished(frame, warped)
        return self(frame, motion) if isinstance(frame, Picture) else Frame(frame.stamp)

    def update(self, settings: MaskSettings) -> None:
        """Use new settings from the next frame on. The mask of the frame before is kept."""
        self._settings = settings

    def _finished(self, frame: Frame, mask: Tensor) -> Mask:
        return Mask(frame.stamp, finished(mask, self._settings, self._ops))


def finished(mask: Tensor, settings: MaskSettings, ops: Arithmetic) -> Tensor:
    """The mask as applied to the picture: with 0 and 1 made exact, inverted and feathered by the settings."""
    mask = ((mask - 0.5) * (1 + 2 * _ENDS) + 0.5).clamp(0, 1)
    if settings.invert:
        mask = 1 - mask
    if settings.feather_px:
        mask = ops.grown(mask, 0, settings.feather_px)
        mask = ((mask - 0.5) * (1 + 1e-5) + 0.5).clamp_(0, 1)  # rounding in the blur makes 1 slightly smaller
    return mask
