"""A keyframe over the picture: as far as it is trusted, along the flow, and to the bit nothing where it is not."""

import pytest
import torch
from support.fields import constant_flow, texture

from warpfuse.stages.diffusion.apply_keyframe import ApplyKeyframe
from warpfuse.stages.frame import Frame, Motion, Picture, Stamp
from warpfuse.stages.motion.settings import WarpSettings

H, W = 48, 64
KEY = (texture(H, W, 7) * 255).round() / 255
"""Of bytes, as a file has it: a CPU warps pictures as such."""


def stage():
    return ApplyKeyframe(WarpSettings())


def picture(seed, **more):
    return Picture(Stamp(1, 0), texture(H, W, seed), **more)


def motion(share, trust=None, flow=None):
    trust = torch.ones(1, 1, H, W) if trust is None else trust
    flow = constant_flow(H, W, 0, 0) if flow is None else flow
    return Motion(Stamp(1, 0), flow, trust, KEY, torch.full((1, 1, H, W), share))


def test_what_is_not_the_keyframe_falls_with_the_square_of_the_rest():
    under, past = picture(1), picture(2, trust=torch.ones(1, 1, H, W))
    once = stage()(under, motion(0.75)).rgb
    torch.testing.assert_close(once, 0.75 * KEY + 0.25 * under.rgb)
    twice = stage()(under, motion(0.75), past).rgb
    torch.testing.assert_close(twice, 0.75 * KEY + 0.25 * (0.75 * past.rgb + 0.25 * under.rgb))


@pytest.mark.parametrize("given", ["nothing", "a motion to a frame", "no share", "no trust"])
def test_without_a_keyframe_the_picture_passes_to_the_bit(given):
    under, past = picture(1), picture(2, trust=torch.ones(1, 1, H, W))
    plain = Motion(Stamp(1, 0), constant_flow(H, W, 3, 1), torch.ones(1, 1, H, W))
    no_trust = motion(0.95, trust=torch.zeros(1, 1, H, W), flow=constant_flow(H, W, 3.3, 1))
    anchor = {"nothing": Frame(Stamp(1, 0)), "a motion to a frame": plain, "no share": motion(0.0)}.get(given, no_trust)
    assert torch.equal(stage()(under, anchor, past).rgb, under.rgb)
    assert not torch.equal(stage()(under, motion(0.1), past).rgb, under.rgb), "the control"


def test_the_keyframe_is_pulled_along_the_flow_with_what_is_transparent_in_it():
    under, flow = picture(1), constant_flow(H, W, 5, -3)
    share = torch.ones(1, 1, H, W)
    share[..., :20, :] = 0
    seen = Motion(Stamp(1, 0), flow, torch.ones(1, 1, H, W), KEY, share)
    out = stage()(under, seen).rgb
    torch.testing.assert_close(out[..., 23:, :59], KEY[..., 20:45, 5:], msg="out(p) = key(p + flow(p))")
    assert torch.equal(out[..., :23, :], under.rgb[..., :23, :])


def test_lines_are_not_drawn_over_the_keyframe():
    under = picture(1, paint=texture(H, W, 3), cover=torch.full((1, 1, H, W), 0.5))
    out = stage()(under, motion(0.75))
    torch.testing.assert_close(out.paint, 0.75 * KEY + 0.25 * under.paint)
    torch.testing.assert_close(out.cover, torch.full((1, 1, H, W), 0.125))
    again = stage()(out, motion(0.0))
    assert torch.equal(again.paint, out.paint) and torch.equal(again.cover, out.cover)


def test_a_held_picture_passes():
    under = picture(1)
    assert stage().held(under, Frame(Stamp(1, 0))) is under
