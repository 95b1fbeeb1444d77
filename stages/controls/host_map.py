"""A control map made on the host, of pictures of bytes."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from warpfuse.engine.cuda_streams import ToDevice, ToHost
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.controls.settings import ControlSettings
from warpfuse.stages.formulas.pixels import planes_of
from warpfuse.stages.frame import Frame, Picture
from warpfuse.stages.stage import Stage

Bytes = npt.NDArray[np.uint8]
S = TypeVar("S", bound=ControlSettings)


class HostMap(Stage, Generic[S]):
    """Picture -> its map.

    drawn  (uint8 [h, w, 3], settings) -> uint8 [h, w] or [h, w, 3]
    """

    def __init__(self, drawn: Callable[[Bytes, S], Bytes], settings: S, device: str) -> None:
        self._drawn = drawn
        self._settings = settings
        self._ops = arithmetic(device)
        self._to_host, self._to_device = ToHost(device), ToDevice(device)

    def __call__(self, frame: Picture) -> Picture:
        """Only bytes cross the bus, both ways."""
        drawn = self._drawn(self._to_host(self._ops.bytes_of(frame.rgb)), self._settings)
        pixels = np.ascontiguousarray(drawn if drawn.ndim == 3 else drawn[..., None].repeat(3, 2))
        return Picture(frame.stamp, planes_of(self._to_device(torch.from_numpy(pixels))))

    def held(self, frame: Frame) -> Frame:
        """Nothing is made of a held frame."""
        return Frame(frame.stamp)

    def update(self, settings: Any) -> None:
        """Take the settings of the control."""
        self._settings = settings

    def close(self) -> None:
        """Give the pinned memory back."""
        self._to_host.close()
        self._to_device.close()
