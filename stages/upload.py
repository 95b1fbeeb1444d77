"""From the host onto the device: uint8 RGB to float32 in [0, 1], at the size the networks take."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.formulas.pixels import planes_of
from warpfuse.stages.frame import Picture, RawFrame
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Upload(opening.size, opening.device)


class Upload(Stage):
    """RawFrame -> Picture.

    size    (width, height) of the frames that leave; one of another size is resized, antialiased
    device  where the tensors go
    """

    def __init__(self, size: tuple[int, int], device: str) -> None:
        self._size = (size[1], size[0])
        self._to_device = ToDevice(device)

    def __call__(self, raw: RawFrame) -> Picture:
        """Only bytes cross the bus; conversion and resizing run on the device."""
        pixels = np.require(raw.rgb, requirements=["C", "W"])  # torch warns of memory that may not be written
        rgb = planes_of(self._to_device(torch.from_numpy(pixels)))
        return Picture(raw.stamp, self._resized(rgb))

    def _resized(self, rgb: Tensor) -> Tensor:
        if tuple(rgb.shape[2:]) == self._size:
            return rgb
        return interpolate(rgb, self._size, mode="bilinear", antialias=True, align_corners=False)

    def close(self) -> None:
        """Give the pinned memory back."""
        self._to_device.close()
