"""Fusion of pictures after the decoder, for `stages.fuse.reference: output`."""

from collections.abc import Hashable, Mapping
from typing import Any

from warpfuse.stages.diffusion.fuse import fusion_weight, settings_of
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame, Picture, Stamp
from warpfuse.stages.solvers.levels import CLEAN
from warpfuse.stages.solvers.pair import fuse
from warpfuse.stages.stage import Capturable, Opening, Stage

__all__ = ["Blend", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Blend(opening.config.stages.fuse)


class Blend(Stage, Capturable):
    """The decoded picture blended with the warped last picture.

    inputs  picture  the decoded picture
            past     the warped last picture and its trust; a bare `Frame`: the picture passes unchanged
    gives   w past + (1 - w) picture
    """

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings

    def __call__(self, picture: Picture, past: Frame) -> Picture:
        """The blend. Where the weight is 0 it equals the picture bit for bit."""
        if not isinstance(past, Picture) or past.trust is None or not self._settings.exit:
            return picture
        w = fusion_weight(self._settings, past.trust) * self._settings.exit
        return Picture(picture.stamp, fuse(picture.rgb, None, past.rgb, None, w, 0.0, CLEAN))

    def held(self, picture: Frame, past: Frame) -> Frame:
        """The past as the picture; a bare `Frame` if there is none."""
        return Picture(picture.stamp, past.rgb) if isinstance(past, Picture) else Frame(picture.stamp)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable:
        """See `Capturable`."""
        return self._settings.largest_weight, self._settings.exit

    def update(self, settings: FuseSettings) -> None:
        """Use new settings from the next frame on."""
        self._settings = settings
