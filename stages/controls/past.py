"""The last styled picture as the map of the next: what a TemporalNet is steered by."""

import torch

from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return PastMap()


class PastMap(Stage):
    """The last styled picture where its things are now.

    inputs  frame  of the source
            past   the last styled picture, warped, with its trust; nothing: the frame is the map
    gives   t past + (1 - t) frame: what came into view has no past
    """

    def __call__(self, frame: Picture, past: Frame) -> Picture:
        """One blend."""
        if not isinstance(past, Picture) or past.trust is None:
            return Picture(frame.stamp, frame.rgb)
        return Picture(frame.stamp, torch.lerp(frame.rgb, past.rgb, past.trust))

    def held(self, frame: Frame, past: Frame) -> Frame:
        """Nothing is made of a held frame."""
        return Frame(frame.stamp)
