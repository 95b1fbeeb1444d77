"""From the device to the host: float32 in [0, 1] to uint8 RGB."""

from warpfuse.stages.frame import Frame, RawFrame


class Download:
    """Frame with "rgb" [1, 3, h, w] in [0, 1] -> RawFrame uint8 [h, w, 3], rounded to the nearest."""

    inputs = ("frame",)

    def __call__(self, frame: Frame) -> RawFrame:
        """Conversion runs on the device, only bytes cross the bus."""
        pixels = (frame["rgb"][0] * 255 + 0.5).clamp_(0, 255).byte().permute(1, 2, 0).contiguous()
        return RawFrame(frame.stamp, pixels.cpu().numpy())

    def update(self, settings: object) -> None:
        """Nothing here can be changed while frames flow."""

    def close(self) -> None:
        """Nothing is held."""
