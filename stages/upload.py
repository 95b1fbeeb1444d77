"""From the host onto the device: uint8 RGB to float32 in [0, 1], at the size the networks take."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from warpfuse.engine.cuda_streams import UploadRing
from warpfuse.stages.cpu.pixels import planes_of
from warpfuse.stages.frame import Frame, RawFrame


class Upload:
    """RawFrame -> Frame with "rgb" [1, 3, h, w] float32 in [0, 1].

    size    (width, height) of the frames that leave; one of another size is resized, antialiased
    device  where the tensors go
    """

    inputs = ("raw",)

    def __init__(self, size: tuple[int, int], device: str) -> None:
        self._size = (size[1], size[0])
        self._device = torch.device(device)
        self._ring: UploadRing | None = None
        self._shape: tuple[int, ...] = ()

    def __call__(self, raw: RawFrame) -> Frame:
        """Only bytes cross the bus; conversion and resizing run on the device."""
        if self._device.type == "cpu":
            return Frame(raw.stamp, {"rgb": self._resized(planes_of(raw.rgb))})
        pixels = self._on_device(torch.from_numpy(raw.rgb))
        rgb = torch.empty((1, 3, *pixels.shape[:2]), device=self._device)
        rgb.copy_(pixels.permute(2, 0, 1)[None]).mul_(1 / 255)
        return Frame(raw.stamp, {"rgb": self._resized(rgb)})

    def _on_device(self, pixels: Tensor) -> Tensor:
        """Through pinned memory onto a card, without waiting."""
        if self._ring is None or pixels.shape != self._shape:
            self._ring, self._shape = UploadRing(tuple(pixels.shape), pixels.dtype, str(self._device)), pixels.shape
        return self._ring.upload(pixels)

    def _resized(self, rgb: Tensor) -> Tensor:
        if tuple(rgb.shape[2:]) == self._size:
            return rgb
        return interpolate(rgb, self._size, mode="bilinear", antialias=True, align_corners=False)

    def update(self, settings: object) -> None:
        """Nothing here can be changed while frames flow."""

    def close(self) -> None:
        """Give the pinned memory back."""
        self._ring = None
