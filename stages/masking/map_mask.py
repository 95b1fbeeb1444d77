"""A mask that is the map of a control of the run."""

from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.frame import Picture
from warpfuse.stages.masking.mask import FoundMask, settings_of
from warpfuse.stages.stage import Opening, Stage

__all__ = ["MapMask", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return MapMask(arithmetic(opening.device), opening.config.mask)


class MapMask(FoundMask):
    """The mean of the channels of a control map; its input `frame` is the map."""

    def find(self, frame: Picture) -> Tensor:
        """[1, 1, h, w]: the mean of the map's channels."""
        return frame.rgb.mean(1, keepdim=True)
