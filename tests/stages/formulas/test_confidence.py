"""Confidence masks: each part by its formula, and the whole in both forms."""

import math

import pytest
import torch
from support.fields import constant_flow, texture
from torch.nn.functional import conv2d, max_pool2d, pad

from warpfuse.stages.formulas.confidence_mask import (
    colour_histogram,
    consistent,
    inside,
    photometric,
    reduce_to_latent,
    same_shot,
)
from warpfuse.stages.motion.settings import ConfidenceSettings

LIMITS = ConfidenceSettings().limits


def holed(size=32):
    m = torch.ones(1, 1, size, size)
    m[..., 10:13, 20:24] = 0
    return m


@pytest.mark.parametrize("check, allowed_px", [("squared", 2.9), ("norm", 0.9)])
def test_the_tolerance_at_twenty_pixels_of_motion(check, allowed_px):
    flow = constant_flow(4, 4, 20, 0)
    for gap, believed in ((allowed_px - 0.1, 1), (allowed_px + 0.1, 0)):
        back = -flow + constant_flow(4, 4, 0, gap)
        assert (consistent(flow, back, check) == believed).all(), gap


def test_a_flow_that_does_not_return_is_not_believed():
    flow = constant_flow(4, 4, 5, -3)
    assert (consistent(flow, -flow) == 1).all()
    assert (consistent(flow, flow) == 0).all()  # the control: the same direction twice


def test_only_positions_on_the_frame_are_inside():
    assert (inside(constant_flow(8, 8, 0, 0)) == 1).all()
    right = inside(constant_flow(8, 8, 3, 0))[0, 0]
    assert (right[:, :5] == 1).all() and (right[:, 5:] == 0).all()
    up = inside(constant_flow(8, 8, 0, -2))[0, 0]
    assert (up[:2] == 0).all() and (up[2:] == 1).all()


def test_photometric_trust_ends_at_the_threshold_or_fades_behind_it():
    cur = torch.zeros(1, 3, 1, 4)
    prev = torch.tensor([0.05, 0.101, 0.125, 0.2]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert photometric(cur, prev, 0.1).flatten().tolist() == [1, 0, 0, 0]
    assert photometric(cur, prev, 0.1, 0.5).flatten().tolist() == pytest.approx([1, 0.98, 0.5, 0], abs=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize("size", [(32, 48), (9, 7)])
def test_doubt_grows_by_a_square_and_is_blurred_by_a_binomial(ops, radius, size):
    m = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    grown = 1 - max_pool2d(1 - m, 2 * radius + 1, 1, radius)
    assert torch.allclose(ops.grown(m, radius, 0), grown, atol=1e-6)
    row = torch.tensor([float(math.comb(2 * radius, k)) for k in range(2 * radius + 1)]) / 4**radius
    padded = pad(m, (radius,) * 4, "replicate")
    blurred = conv2d(conv2d(padded, row.view(1, 1, 1, -1)), row.view(1, 1, -1, 1))
    assert torch.allclose(ops.grown(m, 0, radius), blurred, atol=1e-6)
    assert not torch.allclose(ops.grown(m, 0, radius + 1), blurred, atol=1e-3), "the control"
    assert torch.equal(ops.grown(m, 0, 0), m)


def test_distrust_grows_by_the_radius(ops):
    grown = ops.grown(holed(), 2, 0)
    expected = torch.ones(1, 1, 32, 32)
    expected[..., 8:15, 18:26] = 0
    assert torch.equal(grown, expected)


def test_feathering_keeps_a_constant_and_gives_no_trust_back_after_growing(ops):
    assert (ops.grown(torch.full((1, 1, 9, 9), 0.5), 0, 3) - 0.5).abs().max() < 1e-6
    m = holed()
    soft = ops.grown(m, 3, 3)
    assert (soft <= m + 1e-6).all() and (soft[m == 0] < 1e-6).all()
    assert ((soft > 0.1) & (soft < 0.9)).any()
    assert (ops.grown(m, 0, 3)[m == 0] > 0.05).any()  # the control: without growing, it does


@pytest.mark.parametrize("factor", [4, 8])
def test_a_latent_cell_is_trusted_as_its_least_trusted_pixel(factor):
    m = torch.rand(1, 1, 16, 48)
    cells = reduce_to_latent(m, factor)
    assert cells.shape == (1, 1, 16 // factor, 48 // factor)
    assert torch.equal(cells[0, 0, 1, 2], m[0, 0, factor : 2 * factor, 2 * factor : 3 * factor].min())
    with pytest.raises(ValueError, match="multiples"):
        reduce_to_latent(m, 5)


def test_confidence_in_a_perfect_past_is_full_but_for_what_came_into_view(ops):
    rgb, flow = texture(32, 32), constant_flow(32, 32, 4, 0)
    m, coverage = ops.confidence(flow, -flow, rgb, ops.warp(rgb, -flow, "bilinear"), LIMITS)
    assert (m[..., 4:24] == 1).all() and (m[..., 28:] == 0).all()
    assert float(coverage) == pytest.approx(28 / 32, abs=0.1) and float(coverage) == pytest.approx(float(m.mean()))
    for back, prev in ((flow, ops.warp(rgb, -flow, "bilinear")), (-flow, 1 - rgb)):
        assert ops.confidence(flow, back, rgb, prev, LIMITS)[0].mean() < 0.5


def test_without_a_backward_flow_colours_alone_are_judged(ops):
    rgb, flow = texture(32, 32), constant_flow(32, 32, 0, 0)
    against = constant_flow(32, 32, 9, 9)
    assert ops.confidence(flow, None, rgb, rgb, LIMITS)[0].eq(1).all()
    assert ops.confidence(flow, against, rgb, rgb, LIMITS)[0].eq(0).all(), "the control"
    assert ops.confidence(flow, against, rgb, rgb, LIMITS._replace(check="off"))[0].eq(1).all()


def test_a_cut_needs_lost_coverage_and_other_colours():
    red, blue = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    red[:, 0], blue[:, 2] = 0.9, 0.9
    a, b = colour_histogram(red), colour_histogram(blue)
    assert a.shape == (512,) and float(a.sum()) == pytest.approx(1)
    low, high = torch.tensor([0.01]), torch.tensor([0.9])
    assert [float(same_shot(*of, 0.2, 0.2)) for of in ((low, a, b), (low, a, a), (high, a, b))] == [0, 1, 1]


def test_a_cell_is_trusted_between_its_mean_and_its_least_pixel():
    trust = torch.ones(1, 1, 8, 8)
    trust[..., :4, :4] = 0
    assert reduce_to_latent(trust, 8, 1.0).item() == pytest.approx(0.75)
    assert reduce_to_latent(trust, 8, 2.0).item() == pytest.approx(0.5)
    assert reduce_to_latent(trust, 8).item() == 0
    found = [reduce_to_latent(trust, 8, norm).item() for norm in (1, 2, 4, 16, 64)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.05, "on its way to the least"


@pytest.mark.parametrize("norm", [1.0, 2.0, 5.0, math.inf])
def test_full_trust_and_none_stay_what_they_are_to_the_bit(norm):
    for value in (0.0, 1.0):
        assert reduce_to_latent(torch.full((1, 1, 16, 16), value), 8, norm).eq(value).all()
