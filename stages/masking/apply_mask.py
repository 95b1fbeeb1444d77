"""Applying the mask: where it is 1, the styled picture is shown; where it is 0, the source, a colour or nothing."""

from dataclasses import replace

import torch
from torch import Tensor

from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Mask, Picture
from warpfuse.stages.masking.mask import settings_of
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.stage import Opening, Stage

__all__ = ["ApplyMask", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return ApplyMask(opening.config.mask, opening.config.background, opening.device)


class ApplyMask(Stage):
    """The styled picture composed with the source or a colour, or given an alpha channel, by the mask.

    inputs  styled  the styled picture
            mask    the mask; a bare `Frame`: all of the styled picture is shown
            source  the frame of the source
    gives   m styled + (1 - m) source, m = 1 - amount (1 - mask): bit for bit the styled picture where m is 1, and the
            source where it is 0. As `rest` says, the background in place of the source; or the styled picture with
            alpha m

    background  RGB, 0 to 255

    For a repeated frame the last output is shown again. With the new source, things that moved would appear twice.
    """

    def __init__(
        self, settings: MaskSettings, background: tuple[int, int, int] = (0, 0, 0), device: str = "cpu"
    ) -> None:
        self._settings = settings
        self._background = torch.tensor(background, dtype=torch.float32, device=device).view(1, 3, 1, 1) / 255
        self._last: Picture | None = None

    def __call__(self, styled: Picture, mask: Frame, source: Picture) -> Picture:
        """The composed picture."""
        m = self._weight(mask)
        rest = source.rgb if self._settings.rest == "source" else self._background
        if self._settings.transparent:
            alpha = torch.ones_like(styled.rgb[:, :1]) if m is None else m
            shown = Picture(styled.stamp, styled.rgb, alpha=alpha)
        else:
            shown = Picture(styled.stamp, styled.rgb if m is None else m * styled.rgb + (1 - m) * rest)
        self._last = owned(shown)
        return self._last

    def _weight(self, mask: Frame) -> Tensor | None:
        """m, [1, 1, h, w]; None where it is 1 everywhere."""
        amount = self._settings.amount
        if not isinstance(mask, Mask) or not amount:
            return None
        return mask.weight if amount == 1 else 1 - amount * (1 - mask.weight)

    def held(self, styled: Picture, mask: Frame, source: Picture) -> Picture:
        """For a repeated frame the last output; else as `__call__`."""
        if styled.stamp.hold == "repeat" and self._last is not None:
            return replace(self._last, stamp=styled.stamp)
        return self(styled, mask, source)

    def update(self, settings: MaskSettings) -> None:
        """Use new settings from the next frame on."""
        self._settings = settings
