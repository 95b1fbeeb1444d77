"""A control map by a network of a bundle of kind `map`: depth, edges, poses, whatever it was trained for."""

from typing import Any

from warpfuse.stages.controls.map_network import MapNetwork
from warpfuse.stages.controls.settings import NetworkSettings, control_of
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    settings: NetworkSettings = opening.config.controls[control_of(opening.stage)]
    return NetworkMap(MapNetwork(opening.map_network(settings.of)), settings)


class NetworkMap(Stage):
    """Picture -> what the network makes of it; a map of one channel three times."""

    def __init__(self, network: MapNetwork, settings: NetworkSettings) -> None:
        self._network = network
        self._settings = settings

    def __call__(self, frame: Picture) -> Picture:
        """One run of the network."""
        found = self._network(frame.rgb).expand(-1, 3, -1, -1)
        return Picture(frame.stamp, (1 - found if self._settings.invert else found).contiguous())

    def held(self, frame: Frame) -> Frame:
        """Nothing is made of a held frame."""
        return Frame(frame.stamp)

    def update(self, settings: Any) -> None:
        """Take the settings of the control."""
        self._settings = settings

    def close(self) -> None:
        """Close the network."""
        self._network.close()
