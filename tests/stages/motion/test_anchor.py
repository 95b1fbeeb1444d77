"""The flow to the anchor: from any frame of the shot in one step, and when another frame takes its place."""

import pytest
import torch
from support.card import card
from support.fields import constant_flow, end_point_error, frame_of, pan, texture

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.stages.frame import Picture, Stamp
from warpfuse.stages.motion.anchor import Anchor, AnchorOptions
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.network_flow import FlowNetwork
from warpfuse.stages.motion.settings import AnchorSettings, FlowSettings

H, W, FRAMES = 192, 256, 6
STEP = (2, -1)


def staged(coverage=0.2, told=()):
    settings = FlowSettings()
    return Anchor(Flow(settings), AnchorOptions(settings, AnchorSettings(coverage=coverage), told=told))


def followed(pictures, stage=None):
    stage = stage or staged()
    return [stage(frame_of(rgb, i)) for i, rgb in enumerate(pictures)]


def anchors(motions):
    """Numbers of the frames that took the anchor's place."""
    return [n for n, motion in enumerate(motions) if not motion.trust.any()]


def test_every_frame_is_compared_with_the_first():
    pictures = pan(FRAMES, H, W, STEP)
    found = followed(pictures)
    assert anchors(found) == [0]
    for n in range(1, FRAMES):
        truth = constant_flow(H, W, n * STEP[0], n * STEP[1])
        assert end_point_error(found[n].flow, truth, margin=24) < 0.5, n
    before = Flow(FlowSettings())
    last = [before(frame_of(rgb, i)) for i, rgb in enumerate(pictures)][-1]
    assert end_point_error(last.flow, truth, margin=24) > 5, "the control: the frame before is another"


def test_another_shot_has_another_anchor():
    pictures = pan(4, H, W, STEP) + pan(3, H, W, STEP, seed=9)
    assert anchors(followed(pictures)) == [0, 4]


def test_a_frame_that_sees_too_little_of_the_anchor_takes_its_place():
    pictures = pan(4, H, W, (8, 0))
    never, soon = (anchors(followed(pictures, staged(coverage))) for coverage in (0.1, 0.95))
    assert never == [0] and len(soon) > 1
    found = followed(pictures, staged(0.95))
    assert end_point_error(found[soon[1] + 1].flow, constant_flow(H, W, 8, 0), margin=24) < 0.7


def test_a_discontinuity_and_what_frames_are_painted_by_begin_anew():
    settings, pictures = FlowSettings(), pan(FRAMES, H, W, STEP)
    stage = staged(told=("ink",))
    found = [stage(frame_of(rgb, i, discontinuity=i == 2)) for i, rgb in enumerate(pictures[:4])]
    stage.update(AnchorOptions(settings, told=("ink",)))
    found.append(stage(frame_of(pictures[4], 4)))
    stage.update(AnchorOptions(settings, told=("oil",)))
    found.append(stage(frame_of(pictures[5], 5)))
    assert anchors(found) == [0, 2, 5]


def test_a_held_frame_leaves_the_anchor_alone():
    pictures = pan(FRAMES, H, W, STEP)
    stage = staged()
    stage(frame_of(pictures[0]))
    assert not stage.held(Picture(Stamp(1, 0, hold="warp"), texture(H, W, 5))).tensors
    found = stage(frame_of(pictures[2], 2))
    assert end_point_error(found.flow, constant_flow(H, W, 4, -2), margin=24) < 0.5


@pytest.mark.parametrize("coverage", [0.2, 0.0])
def test_the_anchor_does_not_move_with_a_coverage_that_changes(coverage):
    pictures = pan(3, H, W, STEP)
    stage = staged(0.9)
    stage(frame_of(pictures[0]))
    stage.update(AnchorOptions(FlowSettings(), AnchorSettings(coverage=coverage)))
    found = stage(frame_of(pictures[2], 2))
    assert found.trust.any() and torch.isfinite(found.flow).all()


class Still:
    """A flow network that finds no motion."""

    backend = "test"

    def __init__(self, h, w, device):
        self.device = device
        self.inputs = tuple(TensorSpec(name, "float32", (1, 3, h, w)) for name in ("cur", "prev"))
        self.outputs = tuple(TensorSpec(name, "float32", (1, 2, h, w)) for name in ("flow", "flow_back"))
        self.seen = []

    def __call__(self, inputs):
        self.seen.append(inputs["prev"].clone())
        return {spec.name: inputs["cur"].new_zeros(spec.shape) for spec in self.outputs}

    def close(self):
        pass


@pytest.mark.parametrize(
    "by_network, waits", [(True, set()), (False, {"UploadRing.upload", "Landing.wait"})], ids=["network", "dis"]
)
def test_on_a_card_no_host_waits_to_know_which_frame_is_the_anchor(by_network, waits):
    """But for its own copies: DIS has the picture that it compares on the host."""

    def anchored(device):
        settings = FlowSettings()
        network = Still(48, 64, device)
        flow = FlowNetwork(network, settings.trust) if by_network else Flow(settings, device)
        stage = Anchor(flow, AnchorOptions(settings), device=device)
        found = [stage(frame_of(rgb.to(device), n)).trust for n, rgb in enumerate(pictures)]
        return found, network.seen

    pictures = [*[texture(48, 64, 1)] * 3, *[texture(48, 64, 2)] * 3, texture(48, 64, 3)]
    with card() as sim, on(new_stream("cuda:0")):
        trusts, seen = anchored("cuda:0")
        waited = {function for _, module, function in sim.waits if module}
        found = [bool(trust.cpu().any()) for trust in trusts]
        compared = [one.cpu() for one in seen]
    assert waited == waits and not sim.races
    expected, by_host = anchored("cpu")
    assert found == [bool(trust.any()) for trust in expected] == [False, True, True, False, True, True, False]
    assert all(map(torch.equal, compared, by_host)) and len(compared) == len(by_host)
