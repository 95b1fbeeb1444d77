"""Fidelity-oriented encoding with an autoencoder whose loss is a formula."""

import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from warpfuse.stages.diffusion.encode_twice import EncodeTwice
from warpfuse.stages.frame import Frame, Picture, Stamp

SCALE = 0.5


class Lossy:
    """Space to depth, and each way a share of every number is lost: D(z) = keep z, E(rgb) = keep rgb. Lent memory."""

    def __init__(self, kind, keep):
        self.kind, self.keep, self.calls, self.closed = kind, keep, 0, False
        self.lent = None

    def __call__(self, inputs):
        self.calls += 1
        (x,) = inputs.values()
        found = self.keep * (pixel_unshuffle(x, 8) if self.kind == "encoder" else pixel_shuffle(x, 8))
        if self.lent is None:
            self.lent = found.clone()
        self.lent.copy_(found)
        return {"latent" if self.kind == "encoder" else "rgb": self.lent}

    def close(self):
        self.closed = True


def picture(low=0.0, high=1.0):
    return low + (high - low) * torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def encoded(rgb, keep):
    stage = EncodeTwice(Lossy("encoder", keep), Lossy("decoder", keep), SCALE)
    return stage(Picture(Stamp(0, 0), rgb, cell_trust=rgb[:, :1, ::8, ::8]))


def test_what_is_lost_once_is_added_beforehand():
    """z = k x and z' = k^3 x, so z + (z - z') = (2 k - k^3) x: decoded it is off by (1 - k^2)^2, and not 1 - k^2."""
    rgb, keep = picture(0, 0.9), 0.9
    frame = encoded(rgb, keep)
    wanted = (2 * keep - keep**3) * pixel_unshuffle(rgb, 8) * SCALE
    assert torch.allclose(frame.z, wanted, atol=1e-6)
    assert frame.trust is not None
    shown = keep * pixel_shuffle(frame.z / SCALE, 8)
    assert (shown - rgb).abs().max() <= (1 - keep**2) ** 2 + 1e-6 < (1 - keep**2) * rgb.max()


def test_cells_the_decoder_misses_and_those_beside_them_are_left():
    rgb = picture(0.1, 0.2)
    rgb[..., 8:16, 16:24] = 1.0  # 0.64 of it is left
    frame = encoded(rgb, 0.8)
    z = 0.8 * pixel_unshuffle(rgb, 8) * SCALE
    left = torch.isclose(frame.z, z, atol=1e-6).all(1)[0]
    beside = torch.zeros(4, 5, dtype=torch.bool)
    beside[0:3, 1:4] = True
    assert torch.equal(left, beside)


def test_two_encoders_and_a_decoder_run_and_both_are_closed():
    encoder, decoder = Lossy("encoder", 0.9), Lossy("decoder", 0.9)
    stage = EncodeTwice(encoder, decoder, SCALE)
    stage(Picture(Stamp(0, 0), picture()))
    assert (encoder.calls, decoder.calls) == (2, 1)
    assert not stage.held(Picture(Stamp(1, 0, hold="warp"), picture())).tensors
    empty = Frame(Stamp(2, 0))
    assert stage(empty) is empty, "nothing is fed back yet"
    assert (encoder.calls, decoder.calls) == (2, 1)
    stage.close()
    assert encoder.closed and decoder.closed


def test_an_autoencoder_without_loss_changes_nothing():
    rgb = picture()
    assert torch.allclose(encoded(rgb, 1.0).z, pixel_unshuffle(rgb, 8) * SCALE, atol=1e-6)
