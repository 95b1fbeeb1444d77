import math

import pytest
import torch
from support.fields import constant_flow, frame_of, texture

from warpfuse.stages.frame import Frame, Stamp
from warpfuse.stages.motion import warp as module
from warpfuse.stages.motion.warp import Warp, WarpSettings, resize_flow, warp, warp_picture, warp_together

MODES = ["sharp", "bicubic", "bilinear", "nearest"]


@pytest.fixture(params=["opencv", "torch"])
def sampler(request, monkeypatch):
    """Both ways a CPU may take; with an OpenCV that rounds positions they are the same."""
    if request.param == "torch":
        monkeypatch.setattr(module, "_remap_is_exact", lambda: False)
    return request.param


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(64, 128), (50, 70), (1, 9)])
def test_no_motion_gives_the_picture_back(mode, size, sampler):
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    out = warp(rgb, torch.zeros(1, 2, *size), mode)
    exact = size == (64, 128) or mode == "nearest"
    assert torch.equal(out, rgb) if exact else (out - rgb).abs().max() < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_whole_pixels_are_a_shift_with_the_border_going_on(mode, sampler):
    rgb = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    out = warp(rgb, constant_flow(32, 64, 3, -5), mode)
    assert torch.equal(out[..., 5:, :61], rgb[..., :27, 3:])
    assert torch.equal(out[..., 10, 61:], rgb[..., 5, 63:].expand(1, 3, 3))
    negated = warp(rgb, constant_flow(32, 64, -3, 5), mode)  # the control
    assert (negated[..., 5:, :61] - rgb[..., :27, 3:]).abs().mean() > 0.2


@pytest.mark.parametrize("mode, worst", [("sharp", 0.01), ("bicubic", 0.01), ("bilinear", 0.02), ("nearest", 0.2)])
def test_fractions_follow_a_smooth_picture(mode, worst, sampler):
    x = torch.arange(64.0)
    rgb = (0.5 + 0.5 * torch.sin(x / 5)).expand(1, 3, 48, 64).contiguous()
    out = warp(rgb, constant_flow(48, 64, 0.37, 0), mode)
    truth = 0.5 + 0.5 * torch.sin((x + 0.37) / 5)
    assert (out[..., 4:60] - truth[4:60]).abs().max() < worst


@pytest.mark.parametrize("mode", ["sharp", "bicubic"])
def test_both_ways_agree(mode, monkeypatch):
    rgb = torch.rand(2, 4, 45, 77, generator=torch.Generator().manual_seed(0))
    flow = torch.randn(2, 2, 45, 77, generator=torch.Generator().manual_seed(1)) * 15
    one = warp(rgb, flow, mode)
    monkeypatch.setattr(module, "_remap_is_exact", lambda: False)
    assert (warp(rgb, flow, mode) - one).abs().max() < 2e-4


def test_what_bilinear_blurs_is_given_back():
    """A picture pulled by fractions there and back, five times: sharp keeps what bicubic does, bilinear loses it."""
    rgb = texture(96, 128)
    left = {}
    for mode in ("sharp", "bicubic", "bilinear"):
        out = rgb
        for step in (0.3, -0.3, 0.5, -0.5, 0.2, -0.2, 0.4, -0.4, 0.1, -0.1):
            out = warp(out, constant_flow(96, 128, step, -step), mode)
        left[mode] = float((out - rgb)[..., 16:-16, 16:-16].square().mean().sqrt())
    assert left["sharp"] < 0.5 * left["bilinear"] and left["bicubic"] < 0.5 * left["bilinear"], left


@pytest.mark.parametrize("size", [(96, 128), (300, 500), (45, 77), (2, 9), (9, 1)])
def test_a_picture_of_bytes_is_pulled_as_one_of_floats(size):
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    flow = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1)) * 5
    given = rgb.clone(), flow.clone()
    floats = warp(rgb, flow).clamp(0, 1)
    assert (warp_picture(rgb, flow) - floats).abs().max() < 2 / 255
    assert (warp_picture(rgb, -flow) - floats).abs().max() > 0.1, "the control: the other direction"
    assert torch.equal(rgb, given[0]) and torch.equal(flow, given[1])


def test_pictures_pulled_in_turns_share_no_memory():
    flow = constant_flow(40, 56, 0.5, 0.25)
    first = warp_picture(texture(40, 56, 1), flow)
    seen = first.clone()
    warp_picture(texture(40, 56, 2), flow)
    assert torch.equal(first, seen)


def test_fields_pulled_together_are_those_pulled_alone(sampler):
    flow = torch.randn(1, 2, 45, 77, generator=torch.Generator().manual_seed(1)) * 15
    fields = torch.rand(1, 2, 45, 77), torch.rand(1, 3, 45, 77)
    for field, pulled in zip(fields, warp_together(fields, flow), strict=True):
        assert (pulled - warp(field, flow, "bilinear")).abs().max() < 1e-5
        assert (pulled - warp(field, -flow, "bilinear")).abs().max() > 0.1, "the control: the other direction"


def test_half_precision_pictures_come_back_as_such_and_read_at_full_precision():
    rgb = texture(64, 200).half()
    out = warp(rgb, constant_flow(64, 200, 0.5, 0), "bilinear")
    assert out.dtype == torch.float16
    assert (out.float() - warp(rgb.float(), constant_flow(64, 200, 0.5, 0), "bilinear")).abs().max() < 1e-3


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="resize_flow"):
        warp(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 4, 4))


def test_a_resized_flow_is_in_the_new_pixels():
    small = resize_flow(constant_flow(32, 64, 8, -4), (16, 16))
    assert torch.allclose(small, constant_flow(16, 16, 2, -2), atol=1e-5)
    assert torch.allclose(resize_flow(small, (32, 64)), constant_flow(32, 64, 8, -4), atol=1e-5)
    flow = constant_flow(8, 8, 1, 1)
    assert resize_flow(flow, (8, 8)) is flow


@pytest.mark.parametrize("fx, fy", [(0.5, 0.5), (0.25, 0.0), (0.1, 0.7)])
def test_why_noise_is_never_warped(fx, fy):
    """Interpolation takes variance away, so only clean pictures and x0 may go through `warp`."""
    noise = torch.randn(1, 4, 256, 256, generator=torch.Generator().manual_seed(0))
    left = warp(noise, constant_flow(256, 256, fx, fy), "bilinear")[..., 2:-2, 2:-2].var()
    assert float(left) == pytest.approx(((1 - fx) ** 2 + fx**2) * ((1 - fy) ** 2 + fy**2), rel=0.03)


def test_noise_warped_over_ten_frames_is_all_but_gone():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 256, 256, generator=generator)
    for _ in range(10):
        fx, fy = torch.rand(2, generator=generator).tolist()
        noise = warp(noise, constant_flow(256, 256, fx, fy), "bilinear")
    assert float(noise[..., 16:-16, 16:-16].std()) == pytest.approx(0.23, abs=0.05)


def motion_of(h, w, flow, stamp=None):
    return Frame(stamp or Stamp(7, 70), {"flow": flow, "trust": torch.rand(1, 1, h, w)})


def test_the_stage_pulls_the_styled_picture_and_keeps_it_in_range():
    styled = (texture(32, 64) > 0.5).float()  # hard edges: it overshoots
    motion = motion_of(32, 64, constant_flow(32, 64, 0.5, 0.5))
    out = Warp(WarpSettings(cell_norm=None), downscale=8)(motion, frame_of(styled, 6))
    raw = warp(styled, motion["flow"])
    assert raw.max() > 1.01 and raw.min() < -0.01
    assert (out["rgb"] - raw.clamp(0, 1)).abs().max() < 2 / 255
    assert out["rgb"].min() >= 0 and out["rgb"].max() <= 1
    assert out["trust"].shape == (1, 1, 4, 8)
    assert torch.equal(out["trust"][0, 0, 0, 0], motion["trust"][0, 0, :8, :8].min())
    assert out.stamp == motion.stamp
    assert math.isclose(float(styled.max()), 1)  # inputs are read-only


def test_the_stage_refers_to_nothing_where_there_is_nothing():
    stage = Warp(WarpSettings(), downscale=8)
    motion = motion_of(16, 16, torch.zeros(1, 2, 16, 16))
    assert dict(stage(motion, None).tensors) == {}
    restart = motion_of(16, 16, torch.zeros(1, 2, 16, 16), Stamp(8, 80, discontinuity=True))
    assert dict(stage(restart, frame_of(texture(16, 16))).tensors) == {}


def test_the_stage_takes_new_settings():
    stage = Warp(WarpSettings(), downscale=8)
    stage.update(WarpSettings(mode="nearest"))
    styled, motion = texture(16, 16), motion_of(16, 16, constant_flow(16, 16, 0.3, 0))
    assert torch.equal(stage(motion, frame_of(styled))["rgb"], styled)
    stage.close()
