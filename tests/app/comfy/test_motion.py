"""Flow and warping as nodes are the stages'."""

import numpy as np
import pytest
import torch
from support.fields import constant_flow, end_point_error

from warpfuse.engine.errors import BadInput
from warpfuse.stages.cpu import warp_picture
from warpfuse.stages.frame import Picture, Stamp
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.settings import FlowSettings


def stage_on(clip, **settings):
    stage = Flow(FlowSettings(**settings))
    return [stage(Picture(Stamp(i, 0), image.permute(2, 0, 1)[None].contiguous())) for i, image in enumerate(clip)]


def test_flow_is_that_of_the_stage(run, clip):
    motion, colours, trust = run("WarpfuseFlow", images=clip, preset="fast", long_side=0)
    frames = stage_on(clip, preset="fast", long_side=None)
    assert torch.equal(motion["flow"], torch.cat([frame.flow for frame in frames]))
    assert torch.equal(motion["trust"], torch.cat([frame.trust for frame in frames]))
    assert torch.equal(trust, motion["trust"][:, 0]) and trust.shape == (5, 64, 80)
    assert colours.shape == (5, 64, 80, 3) and colours.min() >= 0 and colours.max() <= 1


def test_a_pan_is_found_and_the_first_frame_has_no_past(run, clip):
    """The texture moves by (2, 1) px: a pixel was 2 px to the left and 1 px above."""
    motion, colours, trust = run("WarpfuseFlow", images=clip, preset="balanced", long_side=384)
    assert end_point_error(motion["flow"][2:3], constant_flow(64, 80, -2, -1), margin=8) < 0.4
    assert end_point_error(-motion["flow"][2:3], constant_flow(64, 80, -2, -1), margin=8) > 3  # the control
    assert not motion["flow"][0].any() and not trust[0].any()
    assert torch.equal(colours[0], torch.ones(64, 80, 3)), "what stands still is white"
    assert colours[2, 20, 30].min() < 0.9


def test_warping_pulls_each_picture_onto_the_next_frame(run, clip):
    motion = run("WarpfuseFlow", images=clip, preset="balanced", long_side=384)[0]
    (out,) = run("WarpfuseWarp", images=clip, motion=motion)
    assert torch.equal(out[0], clip[0])
    expected = warp_picture(clip[1].permute(2, 0, 1)[None].contiguous(), motion["flow"][2:3])
    assert torch.equal(out[2], expected[0].permute(1, 2, 0))
    inner = (slice(1, None), slice(8, -8), slice(8, -8))
    assert (out - clip)[inner].abs().mean() < 0.3 * (clip[1:] - clip[:-1])[:, 8:-8, 8:-8].abs().mean()


def test_a_cut_is_trusted_nowhere(run, clip):
    other = 0.3 * torch.rand(1, 64, 80, 3, generator=torch.Generator().manual_seed(5))
    trust = run("WarpfuseFlow", images=torch.cat((clip[:2], other, other)), preset="fast", long_side=0)[2]
    assert [bool(plane.any()) for plane in trust] == [False, True, False, True]


@pytest.mark.parametrize(
    "inputs, text",
    [
        ({"images": torch.zeros(2, 8, 64, 3)}, "12 pixels or more each way, got 64x8"),
        (
            {"images": torch.zeros(2, 32, 64)},
            r"expected pictures \[frames, height, width, 3\], got a tensor \[2, 32, 64\]",
        ),
        ({"images": torch.zeros(2, 32, 64, 3), "long_side": 12}, "long_side: expected 0 or 64 pixels or more, got 12"),
    ],
)
def test_what_has_no_flow_is_refused(run, inputs, text):
    with pytest.raises(BadInput, match=text):
        run("WarpfuseFlow", **{"preset": "fast", "long_side": 0, **inputs})


def test_motion_of_another_clip_is_refused(run, clip):
    motion = run("WarpfuseFlow", images=clip, preset="fast", long_side=0)[0]
    for images in (clip[:3], torch.zeros(5, 24, 32, 3)):
        with pytest.raises(BadInput, match=r"the motion is of 5 frames of 80x64, the pictures are"):
            run("WarpfuseWarp", images=images, motion=motion)


def test_the_colours_of_the_flow_are_those_of_its_direction(run):
    """To the right is red, as in Baker et al. 2011 (Middlebury)."""
    from warpfuse.comfy.motion import colours

    right = torch.zeros(1, 2, 8, 8)
    right[:, 0] = -4.0  # it was to the left
    shown = colours({"flow": right, "trust": torch.ones(1, 1, 8, 8)})[0, 4, 4].numpy()
    assert shown[0] > 0.95 and np.allclose(shown[1:], shown[1], atol=0.01) and shown[1] < 0.5
