"""Fusion after the decoder: of pictures, where `stages.fuse.reference` is `output`."""

from warpfuse.stages.diffusion.fuse import fusion_weight, settings_of
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.solvers.pair import CLEAN, fuse
from warpfuse.stages.stage import Opening, Stage

__all__ = ["Blend", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Blend(opening.config.stages.fuse)


class Blend(Stage):
    """Fusion after the decoder: the picture with the warped last picture.

    inputs  picture  what the decoder gave
            past     the warped last picture and its trust; or nothing, then the picture passes
    gives   w past + (1 - w) picture
    """

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings

    def __call__(self, picture: Picture, past: Frame) -> Picture:
        """Blend where trusted; bit for bit the picture where the weight is 0."""
        if not isinstance(past, Picture) or past.trust is None or not self._settings.exit:
            return picture
        w = fusion_weight(self._settings, past.trust) * self._settings.exit
        return Picture(picture.stamp, fuse(picture.rgb, None, past.rgb, None, w, 0.0, CLEAN))

    def held(self, picture: Frame, past: Frame) -> Frame:
        """The past."""
        return Picture(picture.stamp, past.rgb) if isinstance(past, Picture) else Frame(picture.stamp)

    def update(self, settings: FuseSettings) -> None:
        """Take new weights."""
        self._settings = settings
