"""From the device to the host: float32 in [0, 1] to uint8 RGB."""

import numpy as np
from torch import Tensor

from warpfuse.engine.cuda_streams import DownloadRing
from warpfuse.stages.cpu.pixels import bytes_of
from warpfuse.stages.frame import Frame, RawFrame


class Download:
    """Frame with "rgb" [1, 3, h, w] in [0, 1] -> RawFrame uint8 [h, w, 3], rounded to the nearest.

    The one place where the path of a frame meets the host: this thread waits for the copy of its own picture, by its
    event, while the other stages go on giving work to the device.
    """

    inputs = ("frame",)

    def __init__(self) -> None:
        self._ring: DownloadRing | None = None
        self._shape: tuple[int, ...] = ()

    def __call__(self, frame: Frame) -> RawFrame:
        """Conversion runs on the device, only bytes cross the bus."""
        rgb = frame["rgb"]
        if not rgb.is_cuda:
            return RawFrame(frame.stamp, bytes_of(rgb))
        pixels = (rgb[0] * 255).round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous()
        return RawFrame(frame.stamp, self._on_host(pixels))

    def update(self, settings: object) -> None:
        """Nothing here can be changed while frames flow."""

    def close(self) -> None:
        """Give the pinned memory back."""
        self._ring = None

    def _on_host(self, pixels: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        if self._ring is None or pixels.shape != self._shape:
            self._ring, self._shape = DownloadRing(tuple(pixels.shape), pixels.dtype, str(pixels.device)), pixels.shape
        # Copied out of the pinned memory: sinks keep pictures for as long as they like.
        return self._ring.download(pixels).wait().numpy().copy()
