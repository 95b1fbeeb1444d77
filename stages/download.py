"""From the device to the host: float32 in [0, 1] to uint8 RGB."""

from warpfuse.engine.cuda_streams import ToHost
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.frame import Picture, RawFrame
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run."""
    return Download(opening.device)


class Download(Stage):
    """Picture -> RawFrame uint8 [h, w, 3], rounded to the nearest.

    The one place where the path of a frame meets the host: this thread waits for the copy of its own picture, by its
    event, while the other stages go on giving work to the device.

    device  where the tensors are
    """

    def __init__(self, device: str = "cpu") -> None:
        self._ops = arithmetic(device)
        self._to_host = ToHost(device)

    def __call__(self, frame: Picture) -> RawFrame:
        """Conversion runs on the device, only bytes cross the bus."""
        return RawFrame(frame.stamp, self._to_host(self._ops.bytes_of(frame.rgb)))

    def close(self) -> None:
        """Give the pinned memory back."""
        self._to_host.close()
