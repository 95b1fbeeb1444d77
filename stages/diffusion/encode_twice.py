"""Fidelity-oriented encoding (Rerender-A-Video, Yang et al. 2023, section 4.2): an autoencoder that loses less."""

from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from warpfuse.engine.contract import Engine
from warpfuse.stages.frame import Frame, Latent, Picture
from warpfuse.stages.stage import Opening, Stage

FARTHEST = 0.25
"""Mean difference of a pixel's channels, in [0, 1], from which on what the decoder makes of it is not believed."""


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    return EncodeTwice(opening.network("encoder"), opening.network("decoder"), opening.bundle.about.latent.scale)


def faithful(z: Tensor, z_again: Tensor, rgb: Tensor, rgb_again: Tensor) -> Tensor:
    """z + (1 - bad) (z - z_again): what is lost by decoding and encoding once is added beforehand.

    z, z_again      [b, c, h/d, w/d] latents: of the picture, and of what the decoder makes of z
    rgb, rgb_again  [b, 3, h, w] in [0, 1]: the picture, and what the decoder makes of z

    A cell is bad where it or one beside it has a pixel that the decoder misses by more than `FARTHEST`.
    """
    missed = ((rgb_again - rgb).abs().mean(dim=1, keepdim=True) > FARTHEST).to(z.dtype)
    size = z.shape[-2], z.shape[-1]
    cells = max_pool2d(missed, (rgb.shape[-2] // size[0], rgb.shape[-1] // size[1]))
    if cells.shape[-2:] != size:
        cells = interpolate(cells, size)
    bad = max_pool2d(cells, 3, stride=1, padding=1)
    return z + (1 - bad) * (z - z_again)


class EncodeTwice(Stage):
    """`Encode` for the picture that is fed back, at a decoder and an encoder run more. It owns both and closes them.

    Picture -> its latent in the UNet's scale, and the trust of each cell if it was warped. A frame without a picture
    passes.
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
        """Nobody will look at the latent of a held frame."""
        return Frame(frame.stamp)

    def close(self) -> None:
        """Close both networks."""
        self._encoder.close()
        self._decoder.close()
