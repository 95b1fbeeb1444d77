"""Control maps computed on the host, from uint8 pictures."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from warpfuse.engine.cuda_streams import ToDevice, ToHost
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.controls.settings import ControlSettings
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.stage import Stage

Bytes = npt.NDArray[np.uint8]
S = TypeVar("S", bound=ControlSettings)


class HostMap(Stage, Generic[S]):
    """Picture -> its map.

    drawn     computes the map: (uint8 [h, w, 3], settings) -> uint8 [h, w] or [h, w, 3]
    settings  of the control
    device    of pictures and maps
    """

    def __init__(self, drawn: Callable[[Bytes, S], Bytes], settings: S, device: str) -> None:
        self._drawn = drawn
        self._settings = settings
        self._ops = arithmetic(device)
        self._to_host, self._to_device = ToHost(device), ToDevice(device)

    def __call__(self, frame: Picture) -> Picture:
        """The map of one frame. It is copied from and to the device as uint8."""
        drawn = self._drawn(self._to_host(self._ops.bytes_of(frame.rgb)), self._settings)
        pixels = np.ascontiguousarray(drawn if drawn.ndim == 3 else drawn[..., None].repeat(3, 2))
        return Picture(frame.stamp, self._ops.planes_of(self._to_device(torch.from_numpy(pixels))))

    def held(self, frame: Frame) -> Frame:
        """A bare frame: held frames need no map."""
        return Frame(frame.stamp)

    def update(self, settings: Any) -> None:
        """Use new settings of the control."""
        self._settings = settings

    def close(self) -> None:
        """Free the pinned memory."""
        self._to_host.close()
        self._to_device.close()
