"""What OpenCV does on a CPU is what torch does on a card."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from warpfuse.stages.cpu.opencv import each_plane, resize_area, resize_bilinear, sample, sample_planes

SHAPES = [(1, 1, 24, 40), (2, 5, 17, 23), (1, 16, 8, 8)]


def apart(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype
    return float((a - b).abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(48, 80), (30, 31), (25, 41)])
def test_going_up_is_bilinear_between_pixel_centres(shape, size):
    x = torch.rand(shape)
    got = resize_bilinear(x, size)
    assert apart(got, interpolate(x, size, mode="bilinear", align_corners=False)) < 1e-5
    assert apart(got, interpolate(x, size, mode="bilinear", align_corners=True)) > 1e-2, "control: the other convention"


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_smaller_picture_has_the_mean_of_each_area(factor):
    x = torch.rand(2, 3, 16, 24)
    small = resize_area(x, (16 // factor, 24 // factor))
    assert apart(small, avg_pool2d(x, factor)) < 1e-6
    assert apart(small, x[..., ::factor, ::factor].contiguous()) > 1e-2, "control: one pixel of it"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7])
def test_every_channel_is_sampled_alike_whatever_stands_beside_it(channels):
    """Also to the bit where pictures of three channels stand side by side."""
    x = torch.rand(1, 3, 20, 30)
    columns, rows = np.meshgrid(np.arange(30, dtype=np.float32) + 0.3, np.arange(20, dtype=np.float32) - 0.6)
    at = columns[None], rows[None]
    both = sample(torch.cat((x, x), dim=1), *at, cv2.INTER_CUBIC)
    assert torch.equal(both[:, :3], both[:, 3:])
    many = torch.rand(2, channels, 20, 30)
    alone = [sample(many[b : b + 1, c : c + 1], *at, cv2.INTER_CUBIC) for b in range(2) for c in range(channels)]
    together = sample(many, *at, cv2.INTER_CUBIC)
    assert apart(together, torch.cat(alone).reshape(2, channels, 20, 30)) < 1e-5


def test_each_picture_of_a_batch_has_its_own_places():
    x = torch.arange(30, dtype=torch.float32).repeat(2, 1, 4, 1)
    columns = np.stack([np.tile(np.arange(30, dtype=np.float32) + k, (4, 1)) for k in (0, 2)])
    rows = np.tile(np.arange(4, dtype=np.float32)[:, None], (2, 1, 30))
    out = sample(x, columns, rows, cv2.INTER_LINEAR)
    assert torch.equal(out[0], x[0]) and torch.equal(out[1, ..., :28], x[1, ..., 2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_type_stays(dtype):
    assert each_plane(torch.rand(1, 2, 4, 4).to(dtype), lambda plane, out: np.copyto(out, plane)).dtype == dtype


@pytest.mark.parametrize("kernel", [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_planes_sampled_together_are_those_sampled_alone(count, kernel):
    """Where planes are missing to a full group, others stand in for them and leave no trace."""
    planes = list(np.random.default_rng(0).random((count, 20, 30), np.float32))
    columns, rows = np.meshgrid(np.arange(30, dtype=np.float32) * 0.9, np.arange(20, dtype=np.float32) + 0.4)
    out = np.full((count, 20, 30), np.nan, np.float32)
    sample_planes(planes, columns, rows, kernel, list(out))
    for plane, got in zip(planes, out, strict=True):
        alone = cv2.remap(plane, columns, rows, kernel, None, cv2.BORDER_REPLICATE)
        assert np.abs(got - alone).max() < 1e-5
        assert np.abs(got - plane).max() > 0.1, "control: the plane as it was"


def test_what_shares_memory_with_nobody_may_be_written():
    x = torch.rand(1, 1, 4, 4)
    before = x.clone()
    more = each_plane(x, lambda plane, out: np.add(plane, 1, out=out))
    assert torch.equal(x, before) and torch.equal(more, before + 1)
