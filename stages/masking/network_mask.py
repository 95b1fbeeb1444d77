"""A mask that a network finds in every frame."""

from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.controls.map_network import MapNetwork
from warpfuse.stages.frame import Frame, Mask, Picture
from warpfuse.stages.masking.mask import SteadyMask, finished, settings_of
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.stage import Opening, Stage

__all__ = ["NetworkMask", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    settings: MaskSettings = opening.config.mask
    return NetworkMask(MapNetwork(opening.map_network(settings.of)), settings)


class NetworkMask(Stage):
    """What the network finds in each frame, held steady along the flow.

    inputs  frame   of the source
            motion  to the frame before. Where the graph feeds it
    gives   the mean of the map's channels. Of a held frame the mask of the frame before, warped, without the network;
            nothing for a repeat
    """

    def __init__(self, network: MapNetwork, settings: MaskSettings) -> None:
        self._network = network
        self._ops = arithmetic(network.device)
        self._settings = settings
        self._memory = SteadyMask(self._ops)

    def __call__(self, frame: Picture, motion: Frame | None = None) -> Mask:
        """One run of the network."""
        found = self._network(frame.rgb).mean(1, keepdim=True)
        return self._finished(frame, self._memory.fuse(found, motion, self._settings.steady))

    def held(self, frame: Picture, motion: Frame | None = None) -> Frame:
        """The mask of the frame before, warped."""
        if frame.stamp.hold == "repeat":
            return Frame(frame.stamp)
        warped = self._memory.follow(motion)
        return self(frame, motion) if warped is None else self._finished(frame, warped)

    def update(self, settings: MaskSettings) -> None:
        """Take new settings, from the next frame on. What is remembered stays."""
        self._settings = settings

    def close(self) -> None:
        """Close the network."""
        self._network.close()

    def _finished(self, frame: Frame, mask: Tensor) -> Mask:
        return Mask(frame.stamp, finished(mask, self._settings, self._ops))
