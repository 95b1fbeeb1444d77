"""Copying pictures from the host to the device: uint8 RGB to float32 in [0, 1], at the size of the networks.

Pictures that the card of the run has decoded are converted where they are.
"""

from collections import deque

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from warpfuse.engine import device as card
from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.frame import CardFrame, DecodedOnCard, Picture, RawFrame
from warpfuse.stages.stage import Opening, Stage

_MOST_READ = 3  # surfaces that may still be read: a decoder has few, and its next picture waits for one


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
        self._device = device
        self._to_device = ToDevice(device)
        self._read: deque[tuple[card.Event, DecodedOnCard]] = deque()

    def __call__(self, raw: RawFrame) -> Picture:
        """Copy the bytes to the device; convert and resize them there."""
        if isinstance(raw, CardFrame) and raw.decoded.device == self._device:
            return Picture(raw.stamp, self._resized(self._converted(raw.decoded)))
        pixels = np.require(raw.rgb, requirements=["C", "W"])  # writable: torch warns about read-only memory
        rgb = self._ops.planes_of(self._to_device(torch.from_numpy(pixels)))
        return Picture(raw.stamp, self._resized(rgb))

    def _converted(self, surface: DecodedOnCard) -> Tensor:
        """The surface stays with this stage until it was read: whoever lets it go gives it back to the decoder."""
        stream = card.current(self._device)
        stream.wait_event(surface.ready)
        rgb = surface.planes()
        self._read.append((card.recorded(stream), surface))
        while self._read[0][0].query():  # type: ignore[no-untyped-call]
            self._read.popleft()
            if not self._read:
                break
        if len(self._read) > _MOST_READ:
            self._read.popleft()[0].synchronize()
        return rgb

    def _resized(self, rgb: Tensor) -> Tensor:
        if tuple(rgb.shape[2:]) == self._size:
            return rgb
        return interpolate(rgb, self._size, mode="bilinear", antialias=True, align_corners=False)

    def close(self) -> None:
        """Free the pinned memory, and give the surfaces back that were read."""
        self._to_device.close()
        while self._read:
            self._read.popleft()[0].synchronize()
