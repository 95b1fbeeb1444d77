"""Control maps by a network in a bundle of kind `map`, such as depth, edges or poses."""

from typing import Any

from warpfuse.stages.controls.map_network import MapNetwork
from warpfuse.stages.controls.settings import NetworkMapSettings, control_of
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    settings: NetworkMapSettings = opening.config.controls[control_of(opening.stage)]
    return NetworkMap(MapNetwork(opening.map_network(settings.of)), settings)


class NetworkMap(Stage):
    """Picture -> the output of the network; a map of one channel is repeated three times."""

    def __init__(self, network: MapNetwork, settings: NetworkMapSettings) -> None:
        self._network = network
        self._settings = settings

    def __call__(self, frame: Picture) -> Picture:
        """The map of one frame."""
        found = self._network(frame.rgb).expand(-1, 3, -1, -1)
        return Picture(frame.stamp, (1 - found if self._settings.invert else found).contiguous())

    def held(self, frame: Frame) -> Frame:
        """A bare frame: held frames need no map."""
        return Frame(frame.stamp)

    def update(self, settings: Any) -> None:
        """Use new settings of the control."""
        self._settings = settings

    def close(self) -> None:
        """Close the network."""
        self._network.close()
