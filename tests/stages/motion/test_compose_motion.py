"""Motion over several frames: sums of shifts, products of trust, and nothing across a cut."""

import pytest
import torch

from warpfuse.stages.cpu import warp
from warpfuse.stages.frame import Motion, Stamp
from warpfuse.stages.motion.compose_motion import ComposeMotion

H, W = 32, 48


def motion(seq, dx=0.0, dy=0.0, trust=1.0, discontinuity=False):
    flow = torch.zeros(1, 2, H, W)
    flow[:, 0], flow[:, 1] = dx, dy
    return Motion(Stamp(seq, 0, discontinuity=discontinuity), flow, torch.full((1, 1, H, W), trust))


def test_shifts_add_up():
    compose = ComposeMotion(3)
    for seq, (dx, dy) in enumerate([(5, 5), (1, 2), (-3, 1), (0.5, -1)]):
        out = compose(motion(seq, dx, dy))
    assert torch.allclose(out.flow[0, :, H // 2, W // 2], torch.tensor([-1.5, 2.0]))
    assert out.stamp.seq == 3


def test_it_is_the_warp_of_the_warp():
    """Pulling along the composed motion is pulling twice: a turn about the middle, where the order matters."""
    y, x = torch.meshgrid(torch.arange(H) - H / 2, torch.arange(W) - W / 2, indexing="ij")
    turn = Motion(Stamp(0, 0), torch.stack((0.1 * y, -0.1 * x))[None].float(), torch.ones(1, 1, H, W))
    shift = motion(1, 3.0, 0.0)
    picture = torch.sin(x / 5)[None, None] + torch.cos(y / 4)[None, None]
    compose = ComposeMotion(2)
    compose(turn)
    flow = compose(shift).flow
    twice = warp(warp(picture, turn.flow), shift.flow)
    middle = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(warp(picture, flow)[middle], twice[middle], atol=0.02)
    added = turn.flow + shift.flow  # the control: motions are composed, not added at one place
    assert not torch.allclose(warp(picture, added)[middle], twice[middle], atol=0.02)


def test_trust_is_that_of_the_whole_way():
    compose = ComposeMotion(3)
    for seq, trust in enumerate([1.0, 0.5, 1.0, 0.8]):
        out = compose(motion(seq, trust=trust))
    assert out.trust.mean().item() == pytest.approx(0.4)


def test_a_cut_on_the_way_leaves_none_and_is_forgotten_after():
    compose = ComposeMotion(3)
    found = [compose(motion(seq, trust=float(seq != 4))).trust.max().item() for seq in range(9)]
    assert found == [0, 0, 1, 1, 0, 0, 0, 1, 1]


def test_what_left_the_picture_on_the_way_is_not_trusted():
    compose = ComposeMotion(2)
    compose(motion(0, dx=-10))
    trust = compose(motion(1, dx=-10)).trust[0, 0, H // 2]
    assert trust[:20].max() == 0 and trust[21:].min() == 1


def test_a_discontinuity_forgets():
    compose = ComposeMotion(2)
    compose(motion(0))
    assert compose(motion(1, discontinuity=True)).trust.max() == 0
    assert compose(motion(2)).trust.min() == 1


def test_one_frame_is_the_motion_itself():
    out = ComposeMotion(1)(motion(0, 2.0))
    assert out.flow.mean() == 1.0 and out.trust.min() == 1
