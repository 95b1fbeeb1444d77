"""Bytes become floats and bytes again, as a card makes them."""

import numpy as np
import pytest
import torch

from warpfuse.stages import cpu, formulas
from warpfuse.stages.formulas.pixels import planes_of as planes


def planes_of(rgb):
    return planes(torch.from_numpy(np.ascontiguousarray(rgb)))


def bytes_of(rgb):
    got = cpu.bytes_of(rgb)
    assert torch.equal(got, formulas.bytes_of(rgb)), "both forms, to the bit"
    return got.numpy()


def levels():
    """All 256 in every channel, in different places: uint8 [16, 48, 3]."""
    ramp = np.arange(256, dtype=np.uint8)
    return np.stack([np.concatenate([np.roll(ramp, 37 * c)] * 3) for c in range(3)], axis=1).reshape(16, 48, 3)


def test_every_level_comes_back():
    rgb = levels()
    planes = planes_of(rgb)
    assert torch.equal(planes, torch.from_numpy(rgb).permute(2, 0, 1)[None].float() * (1 / 255))
    assert float(planes.min()) == 0 and float(planes.max()) == 1
    assert np.array_equal(bytes_of(planes), rgb)
    assert not np.array_equal(bytes_of(planes.flip(1)), rgb), "the control: blue for red"


def test_floats_are_rounded_to_the_nearest_and_held():
    rgb = torch.randn(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    wanted = (rgb[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert np.array_equal(bytes_of(rgb), wanted)
    down = (rgb[0] * 255).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert not np.array_equal(bytes_of(rgb), down), "the control: down"


def test_bytes_are_those_of_a_card_to_the_bit():
    eighths = (torch.arange(0, 255.5, 0.125) / 255).expand(1, 3, 1, -1).contiguous()
    wanted = (eighths[0] * 255).round_().clamp_(0, 255).byte().permute(1, 2, 0).numpy()
    assert np.array_equal(bytes_of(eighths), wanted)
    up = (eighths[0] * 255 + 0.5).clamp_(0, 255).byte().permute(1, 2, 0).numpy()
    assert not np.array_equal(up, wanted), "the control: halves go up"


@pytest.mark.parametrize("value", [-8e6, -1.0, -1e-3, 1.001, 2.0, 8e6])
def test_what_is_beyond_a_byte_is_held_not_wrapped(value):
    assert (bytes_of(torch.full((1, 3, 5, 40), value)) == (0 if value < 0 else 255)).all()


def test_planes_that_lie_elsewhere_are_read_there():
    rgb = torch.rand(1, 3, 24, 40)
    assert np.array_equal(cpu.bytes_of(rgb[..., 2:9, 5:30]), bytes_of(rgb[..., 2:9, 5:30].contiguous()))
    assert np.array_equal(cpu.bytes_of(rgb.flip(1)), bytes_of(rgb)[..., ::-1])


def test_a_fourth_plane_is_a_fourth_byte():
    rgba = torch.rand(1, 4, 6, 10)
    found = formulas.bytes_of(rgba)
    assert found.shape == (6, 10, 4) and torch.equal(found[..., 3], formulas.bytes_of(rgba[:, 3:])[..., 0])
    assert torch.equal(found[..., :3], formulas.bytes_of(rgba[:, :3]))
