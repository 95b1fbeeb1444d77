"""Copying pictures from the device to the host: float32 in [0, 1] to uint8 RGB."""

import torch

from warpfuse.engine.cuda_streams import ToHost
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.formulas.pixels import bytes_of
from warpfuse.stages.frame import Picture, RawFrame
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """Open the stage."""
    return Download(opening.device)


class Download(Stage):
    """Picture -> RawFrame, uint8 [h, w, 3], or [h, w, 4] with alpha, rounded to the nearest.

    This is the one stage that waits for the device. It waits for the event of its own copy, while the other stages go
    on launching work.

    device  device of the tensors
    """

    def __init__(self, device: str = "cpu") -> None:
        self._ops = arithmetic(device)
        self._to_host = ToHost(device)

    def __call__(self, frame: Picture) -> RawFrame:
        """Convert on the device and copy the bytes to the host."""
        if frame.alpha is None:
            return RawFrame(frame.stamp, self._to_host(self._ops.bytes_of(frame.rgb)))
        return RawFrame(frame.stamp, self._to_host(bytes_of(torch.cat((frame.rgb, frame.alpha), 1))))

    def close(self) -> None:
        """Free the pinned memory."""
        self._to_host.close()
