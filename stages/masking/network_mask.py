"""Masks that a network finds in each frame."""

from torch import Tensor

from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.controls.map_network import MapNetwork
from warpfuse.stages.frame import Picture
from warpfuse.stages.masking.mask import FoundMask, settings_of
from warpfuse.stages.masking.settings import MaskSettings
from warpfuse.stages.stage import Opening, Stage

__all__ = ["NetworkMask", "open", "settings_of"]


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    settings: MaskSettings = opening.config.mask
    return NetworkMask(MapNetwork(opening.map_network(settings.of)), settings)


class NetworkMask(FoundMask):
    """The mean over the channels of the network's map. The network does not run for held frames."""

    def __init__(self, network: MapNetwork, settings: MaskSettings) -> None:
        super().__init__(arithmetic(network.device), settings)
        self._network = network

    def find(self, frame: Picture) -> Tensor:
        """[1, 1, h, w] in [0, 1], by one run of the network."""
        return self._network(frame.rgb).mean(1, keepdim=True)

    def close(self) -> None:
        """Close the network."""
        self._network.close()
