"""What is kept is a copy of what is lent, and of nothing else."""

import numpy as np
import pytest
import torch

from warpfuse.stages.borrowed import is_borrowed, mark_borrowed, owned, unmark_borrowed
from warpfuse.stages.frame import Motion, Picture, RawFrame, Stamp
from warpfuse.stages.motion.compose_motion import ComposeMotion
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.settings import FlowSettings


@pytest.fixture
def slot():
    """Memory of a link, 3 x 32 x 32 numbers; a stage is called on it, and then it is filled again."""
    memory = torch.zeros(1, 3, 32, 32)
    place = memory.data_ptr(), memory.nbytes
    mark_borrowed(*place)
    yield memory
    unmark_borrowed(*place)


def test_views_of_lent_memory_are_lent_whatever_they_look_like(slot):
    assert all(is_borrowed(x) for x in (slot, slot[0, 1], slot.permute(0, 2, 3, 1), slot[..., 5:], slot.numpy()[0]))
    assert not is_borrowed(slot.clone())
    assert not is_borrowed(torch.zeros(4))


def test_only_what_is_lent_is_copied(slot):
    own = torch.ones(3)
    frame = Motion(Stamp(0, 0), slot[0].permute(1, 2, 0), own)
    copy = owned(frame)
    assert copy.trust is own
    assert copy.flow.stride() == frame.flow.stride()
    slot.fill_(5)
    assert copy.flow.sum() == 0
    assert owned(copy) is copy
    assert owned(None) is None


def test_a_raw_frame_is_kept_by_its_picture(slot):
    raw = RawFrame(Stamp(0, 0), slot.view(torch.uint8).numpy().reshape(32, -1, 3))
    copy = owned(raw)
    slot.fill_(5)
    assert copy.rgb.sum() == 0
    assert raw.rgb.sum() > 0
    mine = RawFrame(Stamp(0, 0), np.zeros((4, 4, 3), np.uint8))
    assert owned(mine) is mine


def test_memory_taken_back_is_not_lent():
    memory = torch.zeros(8)
    mark_borrowed(memory.data_ptr(), memory.nbytes)
    unmark_borrowed(memory.data_ptr(), memory.nbytes)
    assert not is_borrowed(memory)


def _motions(pictures, read):
    """What a stage gives for each picture, read through `read` and gone after the call."""
    stage = Flow(FlowSettings(long_side=None, trust_cell=1))
    out = [stage(Picture(Stamp(n, n), read(picture))) for n, picture in enumerate(pictures)]
    stage.close()
    return out


@pytest.mark.parametrize("lent", [True, False])
def test_flow_remembers_the_frame_before_and_not_the_slot_it_lay_in(slot, lent):
    generator = torch.Generator().manual_seed(1)
    noise = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=generator), (40, 40), mode="bicubic")
    pictures = [noise[..., k : k + 32, k : k + 32].clamp(0, 1).clone() for k in (0, 1, 2)]
    if not lent:  # the control: memory nobody says is lent
        unmark_borrowed(slot.data_ptr(), slot.nbytes)
    apart = _motions(pictures, lambda picture: picture)
    shared = _motions(pictures, slot.copy_)
    same = all(torch.equal(a.trust, b.trust) for a, b in zip(apart, shared, strict=True))
    assert same == lent
    if not lent:
        mark_borrowed(slot.data_ptr(), slot.nbytes)


@pytest.mark.parametrize("lent", [True, False])
def test_composed_motion_remembers_motions(slot, lent):
    memory = slot.view(-1)[:768].view(1, 3, 16, 16)
    if not lent:
        unmark_borrowed(slot.data_ptr(), slot.nbytes)

    def composed(read):
        stage, out = ComposeMotion(3), []
        for n in range(5):
            x = read(torch.full((1, 3, 16, 16), 0.25 * n))
            out.append(stage(Motion(Stamp(n, n), x[:, :2], x[:, 2:])).flow.clone())
        return out

    same = all(torch.equal(a, b) for a, b in zip(composed(torch.clone), composed(memory.copy_), strict=True))
    assert same == lent
    if not lent:
        mark_borrowed(slot.data_ptr(), slot.nbytes)
