"""A CPU sees what a card sees."""

import pytest
import torch
from support.fields import texture

from warpfuse.stages import cpu, formulas
from warpfuse.stages.cpu.downscale import luma_bytes


@pytest.mark.parametrize("picture, size, cell", [
    ((128, 160), (96, 120), 2),  # as most frames: less than half as large again
    ((128, 160), (128, 160), 1),
    ((272, 480), (68, 120), 2),  # halved first
    ((96, 80), (54, 45), 2),  # a side that no cell divides
    ((60, 60), (36, 36), 3),
])  # fmt: skip
def test_both_devices_see_the_same(picture, size, cell):
    rgb = texture(*picture)
    gray, small = cpu.seen(rgb, size, cell)
    gray_torch, small_torch = formulas.seen(rgb, size, cell)
    assert gray.shape == size and gray.dtype == torch.uint8
    assert small.shape == (1, 3, -(-size[0] // cell), -(-size[1] // cell))
    apart = (gray.int() - gray_torch.int()).abs()
    assert apart.max() <= 1 and apart.float().mean() < 0.3
    assert (small - small_torch).abs().max() < (1e-5 if picture[0] % 2 == 0 and size[0] % cell == 0 else 0.02)
    other, _ = formulas.seen(rgb.flip(-1), size, cell)
    assert (gray.int() - other.int()).abs().float().mean() > 2, "the control: the picture in a mirror"


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (2, 2), (1, 5)])
def test_luma_is_that_of_the_formula(size):
    rgb = texture(*size)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    gray = torch.from_numpy(luma_bytes(rgb))
    assert (gray - (rgb[0] * weights).sum(0) * 255).abs().max() <= 0.501
    assert (gray - (rgb[0].flip(0) * weights).sum(0) * 255).abs().max() > 1, "control: blue for red"


@pytest.mark.parametrize("size, wanted", [((48, 48), (64, 64)), ((27, 48), (72, 128)), ((48, 72), (24, 36))])
def test_a_resized_flow_is_that_of_the_formula_in_the_new_pixels(size, wanted):
    flow = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0)) * 5
    truth = formulas.resize_flow(flow, wanted)
    got = cpu.resize_flow(flow, wanted)
    if wanted > size:
        assert (got - truth).abs().max() < 2e-5
    else:  # the mean of each area, where the formula's antialiasing takes neighbours in as well
        gains = torch.tensor([wanted[1] / size[1], wanted[0] / size[0]]).view(1, 2, 1, 1)
        assert (got - torch.nn.functional.avg_pool2d(flow, 2) * gains).abs().max() < 1e-5
    gains = torch.tensor([wanted[1] / size[1], wanted[0] / size[0]]).view(1, 2, 1, 1)
    assert (got - truth / gains).abs().max() > 0.1, "control: the old pixels"
