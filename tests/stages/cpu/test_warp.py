"""What a CPU warps and judges row by row is what the formulas say."""

import pytest
import torch
from support.fields import constant_flow, texture

from warpfuse.stages import cpu, formulas
from warpfuse.stages.motion.settings import ConfidenceSettings

warp = formulas.warp


def scene(seed=0, h=40, w=56):
    """Flow and its inverse that agree here and not there, two pictures likewise."""
    generator = torch.Generator().manual_seed(seed)
    flow = constant_flow(h, w, 1.3, -0.6) + torch.randn(1, 2, h, w, generator=generator) * 0.3
    back = constant_flow(h, w, -1.3, 0.6) + torch.randn(1, 2, h, w, generator=generator) * 0.6
    cur = texture(h, w, seed)
    prev = warp(cur, constant_flow(h, w, -1.3, 0.6), "bilinear")
    return flow, back, cur, (prev + torch.randn(1, 3, h, w, generator=generator) * 0.2).clamp(0, 1)


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (2, 3)])
@pytest.mark.parametrize("softness", [0.0, 0.5])
@pytest.mark.parametrize("check", ["squared", "norm", "off"])
def test_belief_is_that_of_the_formulas(check, softness, size):
    settings = ConfidenceSettings(check=check, softness=softness)
    fields = scene(0, *size)
    wanted, _ = formulas.confidence(*fields, settings.limits)
    got, coverage = cpu.confidence(*fields, settings.limits)
    apart = (got - wanted).abs()
    worst = 0.05 if softness else 1.0  # half a level of 255 before a slope, or before an edge
    assert apart.max() <= worst and apart.mean() < 0.004
    assert abs(float(coverage) - float(got.mean())) < 1e-6
    if check != "off" and size != (2, 3):
        assert 0.02 < wanted.mean() < 0.9, "both kinds of pixels are there"
        other, _ = formulas.confidence(*fields, settings.limits._replace(offset=settings.offset * 2))
        assert (got - other).abs().mean() > 0.02, "the control: what another tolerance believes"


def test_without_a_backward_flow_it_is_not_checked():
    flow, back, cur, prev = scene()
    limits = ConfidenceSettings().limits
    unchecked, _ = cpu.confidence(flow, back, cur, prev, limits._replace(check="off"))
    assert torch.equal(cpu.confidence(flow, None, cur, prev, limits)[0], unchecked)
    assert not torch.equal(cpu.confidence(flow, back, cur, prev, limits)[0], unchecked), "the control"


def test_nothing_that_comes_in_is_written():
    fields = scene()
    before = [field.clone() for field in fields]
    cpu.confidence(*fields, ConfidenceSettings().limits)
    assert all(torch.equal(a, b) for a, b in zip(fields, before, strict=True))


def test_a_flow_that_is_no_number_points_nowhere_else():
    """A network may go wrong: then the picture may, and nothing beyond it is read."""
    rgb, flow = texture(16, 24), torch.zeros(1, 2, 16, 24)
    flow[..., 4:6, 4:6] = torch.tensor([float("nan"), float("inf")])
    flow[..., 8:10, 4:6] = -1e30
    out = cpu.warp_picture(rgb, flow)
    assert torch.isfinite(out[..., 12:, :]).all()
    assert (out[..., 12:, :] - rgb[..., 12:, :]).abs().max() < 0.003
    cpu.confidence(flow, -flow, rgb, rgb, ConfidenceSettings().limits)
