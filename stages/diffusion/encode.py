"""Pictures into latents."""

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame


class Encode:
    """Frame with "rgb" [1, 3, h, w] -> the same without it and with "latent" [1, c, h/d, w/d], in the UNet's scale.

    A frame without "rgb" passes: the reference of the first frame, say, when there is no picture to encode yet. Of one
    that is held only the stamp does: nobody will look at its latent.
    Owns the engine and closes it.
    """

    inputs = ("frame",)

    def __init__(self, encoder: Engine, scale: float) -> None:
        self._encoder = encoder
        self._scale = scale

    def __call__(self, frame: Frame) -> Frame:
        """One run of the encoder."""
        if frame.stamp.hold:
            return Frame(frame.stamp)
        others = {name: tensor for name, tensor in frame.tensors.items() if name != "rgb"}
        if "rgb" not in frame.tensors:
            return frame
        latent = self._encoder({"rgb": frame["rgb"]})["latent"]
        return Frame(frame.stamp, {**others, "latent": latent * self._scale})  # a new tensor: theirs is theirs

    def update(self, settings: object) -> None:
        """Nothing here can be changed while frames flow."""

    def close(self) -> None:
        """Close the encoder."""
        self._encoder.close()
