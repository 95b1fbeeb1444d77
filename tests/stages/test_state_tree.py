"""The state of a stage as a tree: what belongs to its form, what is put in the place of its leaves, and what is one."""

from dataclasses import dataclass, field

import torch

from warpfuse.stages.frame import Latent, Stamp
from warpfuse.stages.loop import LoopCall
from warpfuse.stages.state_tree import Fields, leaves_of, with_leaves


@dataclass
class Kept(Fields):
    stamp: Stamp
    z: torch.Tensor
    seen: list = field(default_factory=list)
    k: int = 0


def tree(seq=7, k=1, cut=False, shared=True, size=4):
    z = torch.full((size,), float(seq))
    held = {"z": z}
    frame = Latent(Stamp(seq + 1, 0, discontinuity=cut), torch.zeros(size))
    return Kept(Stamp(seq, 0), z, [held, held if shared else {"z": z}, (frame, None)], k)


def test_the_form_is_what_decides_which_work_is_launched():
    form = leaves_of(tree()).form
    assert hash(form) == hash(leaves_of(tree(seq=90)).form), "neither values nor numbers of frames do"
    assert form == leaves_of(tree(seq=90)).form == leaves_of(tree(cut=True)).form, (
        "nor how a frame was made that is read"
    )
    others = [tree(k=2), tree(shared=False), tree(size=5)]
    assert all(leaves_of(other).form != form for other in others)
    usual, cut = (leaves_of(LoopCall(Stamp(3, 0, discontinuity=cut), {})).form for cut in (False, True))
    assert usual != cut, "of the frame that is called it does"


def test_new_leaves_make_new_objects_and_what_was_one_stays_one():
    old = tree()
    leaves = leaves_of(old)
    assert len(leaves.tensors) == 2 and list(leaves.stamps) == [7, 8]
    fresh = {id(x): x + 1 for x in leaves.tensors.values()}
    new = with_leaves(old, lambda x: fresh[id(x)], lambda stamp: Stamp(stamp.seq + 10, 0))
    assert new is not old and new.z is new.seen[0]["z"] and new.seen[0] is new.seen[1]
    assert new.stamp.seq == 17 and new.seen[2][0].stamp.seq == 18 and float(new.z[0]) == 8
    assert old.stamp.seq == 7 and float(old.z[0]) == 7, "the old one is as it was"
    assert leaves_of(new).form == leaves.form
