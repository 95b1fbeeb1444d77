"""Backward warping, in both forms."""

import pytest
import torch
from support.fields import constant_flow, texture

from warpfuse.stages import cpu, formulas

MODES = ["sharp", "bicubic", "bilinear", "nearest"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(64, 128), (50, 70), (1, 9)])
def test_no_motion_gives_the_picture_back(mode, size, ops):
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    out = ops.warp(rgb, torch.zeros(1, 2, *size), mode)
    exact = size == (64, 128) or mode == "nearest"
    assert torch.equal(out, rgb) if exact else (out - rgb).abs().max() < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_whole_pixels_are_a_shift_with_the_border_going_on(mode, ops):
    rgb = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    out = ops.warp(rgb, constant_flow(32, 64, 3, -5), mode)
    assert torch.equal(out[..., 5:, :61], rgb[..., :27, 3:])
    assert torch.equal(out[..., 10, 61:], rgb[..., 5, 63:].expand(1, 3, 3))
    negated = ops.warp(rgb, constant_flow(32, 64, -3, 5), mode)  # the control
    assert (negated[..., 5:, :61] - rgb[..., :27, 3:]).abs().mean() > 0.2


@pytest.mark.parametrize("mode, worst", [("sharp", 0.01), ("bicubic", 0.01), ("bilinear", 0.02), ("nearest", 0.2)])
def test_fractions_follow_a_smooth_picture(mode, worst, ops):
    x = torch.arange(64.0)
    rgb = (0.5 + 0.5 * torch.sin(x / 5)).expand(1, 3, 48, 64).contiguous()
    out = ops.warp(rgb, constant_flow(48, 64, 0.37, 0), mode)
    truth = 0.5 + 0.5 * torch.sin((x + 0.37) / 5)
    assert (out[..., 4:60] - truth[4:60]).abs().max() < worst


@pytest.mark.parametrize("mode", ["sharp", "bicubic", "bilinear"])
def test_both_forms_agree(mode):
    rgb = torch.rand(2, 4, 45, 77, generator=torch.Generator().manual_seed(0))
    flow = torch.randn(2, 2, 45, 77, generator=torch.Generator().manual_seed(1)) * 15
    assert (cpu.warp(rgb, flow, mode) - formulas.warp(rgb, flow, mode)).abs().max() < 2e-4
    assert (cpu.warp(rgb, -flow, mode) - formulas.warp(rgb, flow, mode)).abs().max() > 0.1, "the control"


def test_an_opencv_that_rounds_positions_is_not_asked(monkeypatch):
    """OpenCV 4.x samples to 1/32 px: the formula stands in."""
    monkeypatch.setattr("warpfuse.stages.cpu.backward_warp.remap_is_exact", lambda: False)
    rgb, flow = texture(20, 30), constant_flow(20, 30, 0.3, 0.1)
    assert torch.equal(cpu.warp(rgb, flow, "bicubic"), formulas.warp(rgb, flow, "bicubic"))


def test_what_bilinear_blurs_is_given_back(ops):
    """A picture pulled by fractions there and back, five times: sharp keeps what bicubic does, bilinear loses it."""
    rgb = texture(96, 128)
    left = {}
    for mode in ("sharp", "bicubic", "bilinear"):
        out = rgb
        for step in (0.3, -0.3, 0.5, -0.5, 0.2, -0.2, 0.4, -0.4, 0.1, -0.1):
            out = ops.warp(out, constant_flow(96, 128, step, -step), mode)
        left[mode] = float((out - rgb)[..., 16:-16, 16:-16].square().mean().sqrt())
    assert left["sharp"] < 0.5 * left["bilinear"] and left["bicubic"] < 0.5 * left["bilinear"], left


@pytest.mark.parametrize("size", [(96, 128), (300, 500), (45, 77), (2, 9), (9, 1)])
def test_a_picture_is_warped_as_any_tensor_and_held(ops, size):
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    flow = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1)) * 5
    given = rgb.clone(), flow.clone()
    floats = formulas.warp(rgb, flow).clamp(0, 1)
    assert (ops.warp_picture(rgb, flow) - floats).abs().max() < 2 / 255
    assert (ops.warp_picture(rgb, -flow) - floats).abs().max() > 0.1, "the control: the other direction"
    assert torch.equal(rgb, given[0]) and torch.equal(flow, given[1])


def test_pictures_warped_in_turns_share_no_memory(ops):
    flow = constant_flow(40, 56, 0.5, 0.25)
    first = ops.warp_picture(texture(40, 56, 1), flow)
    seen = first.clone()
    ops.warp_picture(texture(40, 56, 2), flow)
    assert torch.equal(first, seen)


def test_half_precision_pictures_come_back_as_such_and_read_at_full_precision(ops):
    rgb = texture(64, 200).half()
    out = ops.warp(rgb, constant_flow(64, 200, 0.5, 0), "bilinear")
    assert out.dtype == torch.float16
    assert (out.float() - ops.warp(rgb.float(), constant_flow(64, 200, 0.5, 0), "bilinear")).abs().max() < 1e-3


def test_sizes_that_differ_are_refused(ops):
    with pytest.raises(ValueError, match="resize_flow"):
        ops.warp(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 4, 4))


def test_a_resized_flow_is_in_the_new_pixels(ops):
    small = ops.resize_flow(constant_flow(32, 64, 8, -4), (16, 16))
    assert torch.allclose(small, constant_flow(16, 16, 2, -2), atol=1e-5)
    assert torch.allclose(ops.resize_flow(small, (32, 64)), constant_flow(32, 64, 8, -4), atol=1e-5)
    flow = constant_flow(8, 8, 1, 1)
    assert ops.resize_flow(flow, (8, 8)) is flow


@pytest.mark.parametrize("fx, fy", [(0.5, 0.5), (0.25, 0.0), (0.1, 0.7)])
def test_why_noise_is_never_warped(ops, fx, fy):
    """Interpolation takes variance away, so only clean pictures and x0 may go through `warp`."""
    noise = torch.randn(1, 4, 256, 256, generator=torch.Generator().manual_seed(0))
    left = ops.warp(noise, constant_flow(256, 256, fx, fy), "bilinear")[..., 2:-2, 2:-2].var()
    assert float(left) == pytest.approx(((1 - fx) ** 2 + fx**2) * ((1 - fy) ** 2 + fy**2), rel=0.03)


def test_noise_warped_over_ten_frames_is_all_but_gone(ops):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 256, 256, generator=generator)
    for _ in range(10):
        fx, fy = torch.rand(2, generator=generator).tolist()
        noise = ops.warp(noise, constant_flow(256, 256, fx, fy), "bilinear")
    assert float(noise[..., 16:-16, 16:-16].std()) == pytest.approx(0.23, abs=0.05)
