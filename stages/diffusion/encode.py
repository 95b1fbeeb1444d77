"""Pictures into latents."""

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame, Latent, Picture
from warpfuse.stages.stage import Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Encode(opening.network("encoder"), opening.bundle.about.latent.scale)


class Encode(Stage):
    """Picture -> its latent in the UNet's scale, and the trust of each cell if it was warped.

    A frame without a picture passes: the reference of the first frame, say, when there is none to encode yet.
    Owns the engine and closes it.
    """

    def __init__(self, encoder: Engine, scale: float) -> None:
        self._encoder = encoder
        self._scale = scale

    def __call__(self, frame: Frame) -> Frame:
        """One run of the encoder."""
        if not isinstance(frame, Picture):
            return frame
        latent = self._encoder({"rgb": frame.rgb})["latent"]
        return Latent(frame.stamp, latent * self._scale, frame.cell_trust)  # a new tensor: theirs is theirs

    def held(self, frame: Frame) -> Frame:
        """Nobody will look at the latent of a held frame."""
        return Frame(frame.stamp)

    def close(self) -> None:
        """Close the encoder."""
        self._encoder.close()
