"""Copying pictures from the host to the device: uint8 RGB to float32 in [0, 1], at the size of the networks."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.frame import Picture, RawFrame
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """Open the stage."""
    return Upload(opening.size, opening.device)


class Upload(Stage):
    """RawFrame -> Picture.

    size    (width, height) of the output; frames of another size are resized, antialiased
    device  device of the output
    """

    def __init__(self, size: tuple[int, int], device: str) -> None:
        self._size = (size[1], size[0])
        self._ops = arithmetic(device)
        self._to_device = ToDevice(device)

    def __call__(self, raw: RawFrame) -> Picture:
        """Copy the bytes to the device; convert and resize them there."""
        pixels = np.require(raw.rgb, requirements=["C", "W"])  # writable: torch warns about read-only memory
        rgb = self._ops.planes_of(self._to_device(torch.from_numpy(pixels)))
        return Picture(raw.stamp, self._resized(rgb))

    def _resized(self, rgb: Tensor) -> Tensor:
        if tuple(rgb.shape[2:]) == self._size:
            return rgb
        return interpolate(rgb, self._size, mode="bilinear", antialias=True, align_corners=False)

    def close(self) -> None:
        """Free the pinned memory."""
        self._to_device.close()
