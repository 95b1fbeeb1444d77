"""Latents into pictures."""

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame


class Decode:
    """Latents to pictures.

    inputs  latent  "latent" [1, c, h/d, w/d] in the UNet's scale
            past    "rgb" [1, 3, h, w]: what is shown if the frame is held. Where the graph feeds it
    gives   "rgb"   [1, 3, h, w] in [0, 1]; nothing for a held frame without a past, which a later stage fills in

    Owns the engine and closes it.
    """

    inputs = ("latent", "past")

    def __init__(self, decoder: Engine, scale: float) -> None:
        self._decoder = decoder
        self._scale = scale

    def __call__(self, frame: Frame, past: Frame | None = None) -> Frame:
        """One run of the decoder; none for a held frame that comes without a latent."""
        if frame.stamp.hold and "latent" not in frame.tensors:
            return Frame(frame.stamp, {} if past is None else {"rgb": past["rgb"]})
        latent = frame["latent"] if self._scale == 1 else frame["latent"] / self._scale
        rgb = self._decoder({"latent": latent})["rgb"]
        return Frame(frame.stamp, {"rgb": rgb.clamp(0, 1)})  # a new tensor: theirs is theirs

    def update(self, settings: object) -> None:
        """Nothing here can be changed while frames flow."""

    def close(self) -> None:
        """Close the decoder."""
        self._decoder.close()
