"""Latents into pictures."""

from collections.abc import Hashable, Mapping
from typing import Any

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.stages.frame import Frame, Latent, Picture, Stamp
from warpfuse.stages.stage import Capturable, Opening, Stage


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return Decode(opening.network("decoder"), opening.bundle.about.latent.scale)


class Decode(Stage, Capturable):
    """Latents to pictures.

    inputs  latent  [1, c, h/d, w/d] in the UNet's scale
            past    the picture to show if the frame is held; optional
    gives   the picture; a bare `Frame` for a held frame without a past, which a later stage fills in

    Owns the engine and closes it.
    """

    def __init__(self, decoder: Engine, scale: float) -> None:
        self._decoder = decoder
        self._scale = scale

    def __call__(self, latent: Latent, past: Frame | None = None) -> Picture:
        """One run of the decoder."""
        z = latent.z if self._scale == 1 else latent.z / self._scale
        rgb = self._decoder({"latent": z})["rgb"]
        return Picture(latent.stamp, rgb.clamp(0, 1))  # clamp copies: the engine reuses its output memory

    def held(self, latent: Frame, past: Frame | None = None) -> Frame:
        """The decoded latent if there is one, else the past."""
        if isinstance(latent, Latent):
            return self(latent)
        return Picture(latent.stamp, past.rgb) if isinstance(past, Picture) else Frame(latent.stamp)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable | None:
        """See `Capturable`."""
        return () if is_capturable(self._decoder) else None

    def close(self) -> None:
        """Close the decoder."""
        self._decoder.close()
