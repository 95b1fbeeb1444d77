"""Pictures into latents."""

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Encode(opening.network("encoder"), opening.bundle.about.latent.scale)


class Encode(Stage):
    """Frame with "rgb" [1, 3, h, w] -> the same without it and with "latent" [1, c, h/d, w/d], in the UNet's scale.

    A frame without "rgb" passes: the reference of the first frame, say, when there is no picture to encode yet.
    Owns the engine and closes it.
    """

    def __init__(self, encoder: Engine, scale: float) -> None:
        self._encoder = encoder
        self._scale = scale

    def __call__(self, frame: Frame) -> Frame:
        """One run of the encoder."""
        others = {name: tensor for name, tensor in frame.tensors.items() if name != "rgb"}
        if "rgb" not in frame.tensors:
            return frame
        latent = self._encoder({"rgb": frame["rgb"]})["latent"]
        return Frame(frame.stamp, {**others, "latent": latent * self._scale})  # a new tensor: theirs is theirs

    def held(self, frame: Frame) -> Frame:
        """Nobody will look at the latent of a held frame."""
        return Frame(frame.stamp)

    def close(self) -> None:
        """Close the encoder."""
        self._encoder.close()
