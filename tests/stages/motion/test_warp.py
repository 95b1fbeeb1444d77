"""The stage that warps the last styled picture or latent."""

import math

import torch
from support.fields import constant_flow, frame_of, texture

from warpfuse.stages.cpu import warp
from warpfuse.stages.frame import Motion, Stamp
from warpfuse.stages.motion.settings import WarpSettings
from warpfuse.stages.motion.warp import Warp


def motion_of(h, w, flow, stamp=None):
    return Motion(stamp or Stamp(7, 70), flow, torch.rand(1, 1, h, w))


def test_the_stage_pulls_the_styled_picture_and_keeps_it_in_range():
    styled = (texture(32, 64) > 0.5).float()  # hard edges: it overshoots
    motion = motion_of(32, 64, constant_flow(32, 64, 0.5, 0.5))
    out = Warp(WarpSettings(cell_norm=None), downscale=8)(motion, frame_of(styled, 6))
    raw = warp(styled, motion.flow)
    assert raw.max() > 1.01 and raw.min() < -0.01
    assert (out.rgb - raw.clamp(0, 1)).abs().max() < 2 / 255
    assert out.rgb.min() >= 0 and out.rgb.max() <= 1
    assert out.cell_trust.shape == (1, 1, 4, 8)
    assert torch.equal(out.cell_trust[0, 0, 0, 0], motion.trust[0, 0, :8, :8].min())
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
    assert torch.equal(stage(motion, frame_of(styled)).rgb, styled)
    stage.close()
