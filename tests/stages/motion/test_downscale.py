"""A CPU sees what a card sees."""

import pytest
import torch
from support.fields import texture

from warpfuse.stages.motion.downscale import halved_towards, seen, seen_by_torch


@pytest.mark.parametrize("picture, size, cell", [
    ((128, 160), (96, 120), 2),  # as most frames: less than half as large again
    ((128, 160), (128, 160), 1),
    ((270, 480), (67, 120), 2),  # halved first
    ((96, 80), (54, 45), 2),  # a side that no cell divides
    ((60, 60), (36, 36), 3),
])  # fmt: skip
def test_both_devices_see_the_same(picture, size, cell):
    rgb = texture(*picture)
    gray, small = seen(rgb, size, cell)
    judged = -(-size[0] // cell), -(-size[1] // cell)
    gray_torch, small_torch = seen_by_torch(halved_towards(rgb, size), size, judged)
    assert gray.shape == size and gray.dtype == torch.uint8 and small.shape == (1, 3, *judged)
    apart = (gray.int() - gray_torch.int()).abs()
    assert apart.max() <= 1 and apart.float().mean() < 0.3
    assert (small - small_torch).abs().max() < (1e-5 if picture[0] % 2 == 0 and size[0] % cell == 0 else 0.02)
    other, _ = seen_by_torch(halved_towards(rgb.flip(-1), size), size, judged)
    assert (gray.int() - other.int()).abs().float().mean() > 2, "the control: the picture in a mirror"
