"""Upload, encode, decode and download: forms of a picture on its way, and whose memory they are."""

import numpy as np
import pytest
import torch

from warpfuse.stages.diffusion.decode import Decode
from warpfuse.stages.diffusion.encode import Encode
from warpfuse.stages.frame import Frame, Latent, Picture, RawFrame, Stamp
from warpfuse.stages.transfer.download import Download
from warpfuse.stages.transfer.upload import Upload


class Borrowed:
    """An engine that gives the same memory out at every call, as engines may after two."""

    def __init__(self, name, factor):
        self.name, self.factor, self.memory, self.closed = name, factor, torch.zeros(1, 3, 4, 6), False

    def __call__(self, inputs):
        (value,) = inputs.values()
        self.memory.copy_(value * self.factor)
        return {self.name: self.memory}

    def close(self):
        self.closed = True


def test_every_byte_survives_up_and_down():
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    raw = RawFrame(Stamp(5, 7), rgb)
    frame = Upload((16, 16), "cpu")(raw)
    assert frame.rgb.shape == (1, 3, 16, 16) and frame.rgb.dtype == torch.float32
    assert (frame.rgb.min().item(), frame.rgb.max().item()) == (0.0, 1.0)
    back = Download()(frame)
    assert np.array_equal(back.rgb, rgb) and back.rgb.flags.c_contiguous and back.stamp == raw.stamp


def test_upload_brings_another_size_to_the_networks():
    rgb = np.full((60, 80, 3), 200, np.uint8)
    frame = Upload((40, 24), "cpu")(RawFrame(Stamp(0, 0), rgb))
    assert frame.rgb.shape == (1, 3, 24, 40)
    assert torch.allclose(frame.rgb, torch.tensor(200 / 255), atol=1e-6)


def test_what_a_decoder_overshoots_is_held_not_wrapped():
    latent = Latent(Stamp(0, 0), torch.linspace(-0.5, 1.5, 72).reshape(1, 3, 4, 6))
    shown = Download()(Decode(Borrowed("rgb", 1.0), 1.0)(latent)).rgb
    expected = (latent.z[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    assert np.array_equal(shown, expected.numpy()) and shown.min() == 0 and shown.max() == 255


def test_latents_are_scaled_in_and_out_again():
    picture = Picture(Stamp(0, 0), torch.rand(1, 3, 4, 6))
    latent = Encode(Borrowed("latent", 2.0), 0.5)(picture)
    back = Decode(Borrowed("rgb", 0.5), 0.5)(latent)
    assert torch.allclose(back.rgb, picture.rgb)


def test_results_outlive_the_engines_next_call():
    encode, decode = Encode(Borrowed("latent", 1.0), 1.0), Decode(Borrowed("rgb", 1.0), 1.0)
    ones, zeros = torch.ones(1, 3, 4, 6), torch.zeros(1, 3, 4, 6)
    kept = encode(Picture(Stamp(0, 0), ones)).z, decode(Latent(Stamp(0, 0), ones)).rgb
    encode(Picture(Stamp(1, 0), zeros))
    decode(Latent(Stamp(1, 0), zeros))
    assert all(tensor.eq(1).all() for tensor in kept)


def test_encode_lets_what_is_not_a_picture_pass():
    trust, stamp = torch.rand(1, 1, 2, 2), Stamp(4, 0)
    encode = Encode(Borrowed("latent", 1.0), 1.0)
    assert encode(Frame(stamp)).tensors == {}
    out = encode(Picture(stamp, torch.rand(1, 3, 4, 6), cell_trust=trust))
    assert out.tensors.keys() == {"z", "trust"} and out.trust is trust


def test_the_engines_are_closed():
    engines = Borrowed("latent", 1.0), Borrowed("rgb", 1.0)
    Encode(engines[0], 1.0).close()
    Decode(engines[1], 1.0).close()
    assert all(engine.closed for engine in engines)


@pytest.mark.parametrize("part", ["crop", "mirror", "locked"])
def test_pictures_that_lie_elsewhere_are_read_there(part):
    rgb = np.random.default_rng(0).integers(0, 256, (16, 48, 3), np.uint8)
    locked = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    lying = {"crop": rgb[2:9, 5:30], "mirror": rgb[:, ::-1], "locked": locked}[part]
    h, w = lying.shape[:2]
    found = Upload((w, h), "cpu")(RawFrame(Stamp(0, 0), lying)).rgb
    assert torch.equal(found, torch.from_numpy(lying.copy()).permute(2, 0, 1)[None] * (1 / 255))
