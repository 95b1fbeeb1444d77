"""Fidelity-oriented encoding (Rerender-A-Video, Yang et al. 2023, section 4.2): an autoencoder that loses less."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from warpfuse.engine.contract import Engine, is_capturable
from warpfuse.stages.frame import Frame, Latent, Picture, Stamp
from warpfuse.stages.stage import Capturable, Opening, Stage

FARTHEST = 0.25
"""Mean difference of a pixel's channels, in [0, 1], above which the decoded pixel counts as wrong."""


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return EncodeTwice(opening.network("encoder"), opening.network("decoder"), opening.bundle.about.latent.scale)


def faithful(z: Tensor, z_again: Tensor, rgb: Tensor, rgb_again: Tensor) -> Tensor:
    """z + (1 - bad) (z - z_again): the loss of decoding and encoding once, added in advance.

    z, z_again      [b, c, h/d, w/d]: latents of rgb and of rgb_again
    rgb, rgb_again  [b, 3, h, w] in [0, 1]: the picture, and the picture decoded from z

    bad is 1 for a cell if the cell or a neighbour has a pixel whose error exceeds `FARTHEST`, else 0.
    """
    missed = ((rgb_again - rgb).abs().mean(dim=1, keepdim=True) > FARTHEST).to(z.dtype)
    size = z.shape[-2], z.shape[-1]
    cells = max_pool2d(missed, (rgb.shape[-2] // size[0], rgb.shape[-1] // size[1]))
    if cells.shape[-2:] != size:
        cells = interpolate(cells, size)
    bad = max_pool2d(cells, 3, stride=1, padding=1)
    return z + (1 - bad) * (z - z_again)


class EncodeTwice(Stage, Capturable):
    """`Encode` for the fed-back picture, with one more run of the decoder and the encoder.

    Picture -> its latent in the UNet's scale, with the trust of each cell if the picture was warped. A frame without a
    picture passes unchanged. Owns both engines and closes them.
    """

    def __init__(self, encoder: Engine, decoder: Engine, scale: float) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._scale = scale

    def __call__(self, frame: Frame) -> Frame:
        """Two runs of the encoder, one of the decoder."""
        if not isinstance(frame, Picture):
            return frame
        rgb = frame.rgb
        z = self._encoder({"rgb": rgb})["latent"].clone()  # the engine's memory is written again below
        rgb_again = self._decoder({"latent": z})["rgb"].clamp(0, 1)
        z_again = self._encoder({"rgb": rgb_again.contiguous()})["latent"]
        return Latent(frame.stamp, faithful(z, z_again, rgb, rgb_again) * self._scale, frame.cell_trust)

    def held(self, frame: Frame) -> Frame:
        """A bare frame: the latent of a held frame is not used."""
        return Frame(frame.stamp)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable | None:
        """See `Capturable`."""
        return () if all(map(is_capturable, (self._encoder, self._decoder))) else None

    def close(self) -> None:
        """Close both networks."""
        self._encoder.close()
        self._decoder.close()
