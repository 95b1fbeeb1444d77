"""The last styled picture as the control map of the next frame, as TemporalNet takes it."""

import torch

from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return PastMap()


class PastMap(Stage):
    """The last styled picture, warped onto the frame.

    inputs  frame  the frame of the source
            past   the last styled picture, warped, and its trust t; a bare `Frame`: the frame is the map
    gives   t past + (1 - t) frame, since regions that came into view have no past
    """

    def __call__(self, frame: Picture, past: Frame) -> Picture:
        """The map of one frame."""
        if not isinstance(past, Picture) or past.trust is None:
            return Picture(frame.stamp, frame.rgb)
        return Picture(frame.stamp, torch.lerp(frame.rgb, past.rgb, past.trust))

    def held(self, frame: Frame, past: Frame) -> Frame:
        """A bare frame: held frames need no map."""
        return Frame(frame.stamp)
