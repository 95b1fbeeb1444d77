"""Pictures into latents."""

from collections.abc import Hashable, Mapping
from typing import Any

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.stages.frame import Frame, Latent, Picture, Stamp
from warpfuse.stages.stage import Capturable, Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Encode(opening.network("encoder"), opening.bundle.about.latent.scale)


class Encode(Stage, Capturable):
    """Picture -> its latent in the UNet's scale, with the trust of each cell if the picture was warped.

    A frame without a picture passes unchanged, such as the reference of the first frame.
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
        return Latent(frame.stamp, latent * self._scale, frame.cell_trust)  # a copy: the engine reuses its memory

    def held(self, frame: Frame) -> Frame:
        """A bare frame: the latent of a held frame is not used."""
        return Frame(frame.stamp)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable | None:
        """See `Capturable`."""
        return () if is_capturable(self._encoder) else None

    def close(self) -> None:
        """Close the encoder."""
        self._encoder.close()
