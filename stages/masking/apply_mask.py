"""Applying the mask: the shown picture is the styled one where the mask is 1, the source where it is 0."""

from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Mask, Picture
from warpfuse.stages.masking.mask import settings_of
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.stage import Opening, Stage

__all__ = ["ApplyMask", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return ApplyMask(opening.config.mask)


class ApplyMask(Stage):
    """The styled picture and the source composed by the mask.

    inputs  styled  the styled picture
            mask    the mask; a bare `Frame`: all of the styled picture is shown
            source  the frame of the source
    gives   m styled + (1 - m) source, m = 1 - amount (1 - mask): bit for bit the styled picture where m is 1, and the
            source where it is 0

    For a repeated frame the last output is shown again. With the new source, things that moved would appear twice.
    """

    def __init__(self, settings: MaskSettings) -> None:
        self._settings = settings
        self._last: Picture | None = None

    def __call__(self, styled: Picture, mask: Frame, source: Picture) -> Picture:
        """The composed picture."""
        amount = self._settings.amount
        if not isinstance(mask, Mask) or not amount:
            shown = styled.rgb
        else:
            m = mask.weight if amount == 1 else 1 - amount * (1 - mask.weight)
            shown = m * styled.rgb + (1 - m) * source.rgb
        self._last = owned(Picture(styled.stamp, shown))
        return self._last

    def held(self, styled: Picture, mask: Frame, source: Picture) -> Picture:
        """For a repeated frame the last output; else as `__call__`."""
        if styled.stamp.hold == "repeat" and self._last is not None:
            return Picture(styled.stamp, self._last.rgb)
        return self(styled, mask, source)

    def update(self, settings: MaskSettings) -> None:
        """Use new settings from the next frame on."""
        self._settings = settings
