"""The frame that is shown: at the size of the output, with black bars where the source has none of it."""

import numpy as np

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.geometry.framing import Framing, scaled
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """Open the stage."""
    return FitOutput(opening.framing)


class FitOutput(Stage):
    """RawFrame -> RawFrame at the output's size. What the networks painted over bars is black again."""

    def __init__(self, framing: Framing) -> None:
        self._size = framing.shown
        self._from, self._to = framing.content(framing.size), framing.content(framing.shown)

    def __call__(self, frame: RawFrame) -> RawFrame:
        """Scale the part between the bars alone, so that nothing bleeds into them."""
        inner = np.ascontiguousarray(scaled(self._from.of(frame.rgb), (self._to.width, self._to.height)))
        if inner.shape[1::-1] == self._size:
            return RawFrame(frame.stamp, inner)
        whole = np.zeros((self._size[1], self._size[0], inner.shape[2]), np.uint8)
        self._to.of(whole)[:] = inner
        return RawFrame(frame.stamp, whole)
