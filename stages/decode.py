"""Latents into pictures."""

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame


class Decode:
    """Frame with "latent" [1, c, h/d, w/d] in the UNet's scale -> Frame with "rgb" [1, 3, h, w] in [0, 1].

    Owns the engine and closes it.
    """

    inputs = ("latent",)

    def __init__(self, decoder: Engine, scale: float) -> None:
        self._decoder = decoder
        self._scale = scale

    def __call__(self, frame: Frame) -> Frame:
        """One run of the decoder."""
        rgb = self._decoder({"latent": frame["latent"] / self._scale})["rgb"]
        return Frame(frame.stamp, {"rgb": rgb.clamp(0, 1)})  # a new tensor: theirs is theirs

    def update(self, settings: object) -> None:
        """Nothing here can be changed while frames flow."""

    def close(self) -> None:
        """Close the decoder."""
        self._decoder.close()
