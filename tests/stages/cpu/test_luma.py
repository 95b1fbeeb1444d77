"""What is remembered of a picture on a CPU, against the plain formulas."""

import pytest
import torch
from support.fields import texture
from torch.nn.functional import avg_pool2d

from warpfuse.stages.cpu.luma import colour_histogram, luma_and_half, luma_bytes


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (2, 2), (1, 5)])
def test_luma_and_the_half_are_those_of_the_formulas(size):
    rgb = texture(*size)
    gray, half = luma_and_half(rgb)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    wanted = (rgb[0] * weights).sum(0) * 255
    assert (torch.from_numpy(gray) - wanted).abs().max() <= 0.501
    assert (torch.from_numpy(gray) - (rgb[0].flip(0) * weights).sum(0) * 255).abs().max() > 1, "control: blue for red"
    assert (luma_bytes(rgb) == gray).all()
    assert half.shape == (1, 3, size[0] // 2, size[1] // 2)
    if half.numel():
        assert (half - avg_pool2d(rgb, 2)).abs().max() < 1e-6
        assert (half - rgb[..., 1::2, 1::2][..., : size[0] // 2, : size[1] // 2]).abs().max() > 1e-3, (
            "control: one pixel"
        )


@pytest.mark.parametrize("every", [1, 3])
def test_shades_are_counted_as_they_are_binned(every):
    rgb = texture(40, 56, 3)
    rgb[..., 0, 0], rgb[..., 0, 3], rgb[..., 0, 6] = 0.0, 1.0, 0.5  # the ends, and an edge between two shades
    shade = (rgb[0, :, ::every, ::every] * 8).clamp(0, 7).to(torch.int64)
    index = (shade[0] * 64 + shade[1] * 8 + shade[2]).flatten()
    wanted = torch.bincount(index, minlength=512) / index.numel()
    assert torch.allclose(colour_histogram(rgb, every), wanted, atol=1e-7)
    assert not torch.allclose(colour_histogram(rgb.flip(1), every), wanted, atol=1e-3), (
        "control: channels the other way"
    )
