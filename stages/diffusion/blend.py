"""Fusion after the decoder: of pictures, where `stages.fuse.reference` is `output`."""

from warpfuse.stages.diffusion.fuse import fusion_weight, settings_of
from warpfuse.stages.diffusion.settings import FuseSettings
from warpfuse.stages.frame import Frame
from warpfuse.stages.solvers.pair import CLEAN, fuse
from warpfuse.stages.stage import Opening, Stage

__all__ = ["Blend", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Blend(opening.config.stages.fuse)


class Blend(Stage):
    """Fusion after the decoder: the picture with the warped last picture.

    inputs  picture    "rgb" [1, 3, h, w] in [0, 1]
            past       "rgb" likewise and "trust_pixels" [1, 1, h, w]; or nothing, then the picture passes
    gives   "rgb"      w past + (1 - w) picture
    """

    def __init__(self, settings: FuseSettings) -> None:
        self._settings = settings

    def __call__(self, picture: Frame, past: Frame) -> Frame:
        """Blend where trusted; bit for bit the picture where the weight is 0."""
        if "rgb" not in past.tensors or not self._settings.exit:
            return picture
        w = fusion_weight(self._settings, past["trust_pixels"]) * self._settings.exit
        return Frame(picture.stamp, {"rgb": fuse(picture["rgb"], None, past["rgb"], None, w, 0.0, CLEAN)})

    def held(self, picture: Frame, past: Frame) -> Frame:
        """The past."""
        return Frame(picture.stamp, {"rgb": past["rgb"]})

    def update(self, settings: FuseSettings) -> None:
        """Take new weights."""
        self._settings = settings
