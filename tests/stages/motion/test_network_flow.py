"""A network gives the flow: the stage keeps to the contract of `Flow`, and takes the directions the right way round."""

import pytest
import torch
from support.fields import constant_flow, end_point_error, frame_of, pan, texture

from warpfuse.engine import open_engine
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import EngineError
from warpfuse.stages.motion.network_flow import FlowNetwork
from warpfuse.stages.motion.settings import ConfidenceSettings


class Known:
    """An engine that answers every pair with the flow it was told, from two slots that it fills again and again."""

    backend, device = "stand-in", "cpu"

    def __init__(self, h, w, x, y, back=None, names=("cur", "prev")):
        self.inputs = tuple(TensorSpec(name, "float32", (1, 3, h, w)) for name in names)
        self.outputs = tuple(TensorSpec(name, "float32", (1, 2, h, w)) for name in ("flow", "flow_back"))
        there = constant_flow(h, w, x, y)
        self.answer = {"flow": there, "flow_back": constant_flow(h, w, *(back or (-x, -y)))}
        self.slots = [{name: torch.zeros_like(tensor) for name, tensor in self.answer.items()} for _ in range(2)]
        self.calls, self.closed = [], False

    def __call__(self, inputs):
        self.calls.append(inputs)
        slot = self.slots[len(self.calls) % 2]
        for name, tensor in self.answer.items():
            slot[name].copy_(tensor)
        return slot

    def close(self):
        self.closed = True


def stage_of(engine):
    return FlowNetwork(engine, ConfidenceSettings())


def test_the_flow_is_handed_on_and_believed_where_it_fits():
    before, now = pan(2, 96, 128, (3, -2))
    engine = Known(96, 128, 3, -2)
    stage = stage_of(engine)
    stage(frame_of(before))
    out = stage(frame_of(now, 1))
    assert torch.equal(out.flow, constant_flow(96, 128, 3, -2)) and out.stamp.seq == 1
    assert out.trust[..., 12:-12, 12:-12].mean() > 0.95
    assert torch.equal(engine.calls[0]["cur"], now) and torch.equal(engine.calls[0]["prev"], before)


@pytest.mark.parametrize("wrong", [{"x": -3, "y": 2}, {"x": 3, "y": -2, "back": (3, -2)}])
def test_a_flow_of_the_wrong_direction_or_that_does_not_return_is_not_believed(wrong):
    before, now = pan(2, 96, 128, (3, -2))
    stage = stage_of(Known(96, 128, **wrong))
    stage(frame_of(before))
    right = stage_of(Known(96, 128, 3, -2))
    right(frame_of(before))
    assert stage(frame_of(now, 1)).trust.mean() < 0.8 * right(frame_of(now, 1)).trust.mean()


def test_a_frame_of_another_size_is_compared_at_the_engines_and_answered_at_its_own():
    before, now = pan(2, 192, 256, (8, -4))
    stage = stage_of(Known(96, 128, 4, -2))
    stage(frame_of(before))
    out = stage(frame_of(now, 1))
    assert end_point_error(out.flow, constant_flow(192, 256, 8, -4)) < 1e-5
    assert out.trust.shape == (1, 1, 192, 256) and out.trust[..., 24:-24, 24:-24].mean() > 0.9


def test_what_was_handed_on_outlives_the_engines_slots():
    engine = Known(48, 64, 1, 0)
    stage = stage_of(engine)
    frames = pan(4, 48, 64, (1, 0))
    stage(frame_of(frames[0]))
    first = stage(frame_of(frames[1], 1))
    engine.answer = {name: tensor * 9 for name, tensor in engine.answer.items()}
    for i in (2, 3):
        stage(frame_of(frames[i], i))
    assert torch.equal(first.flow, constant_flow(48, 64, 1, 0))
    assert engine.slots[0]["flow"][0, 0, 0, 0] == 9  # the control: the slot itself was written again


def test_without_a_past_nothing_is_trusted_and_the_network_is_not_asked():
    a, b, c = pan(3, 48, 64)
    engine = Known(48, 64, 3, -2)
    stage = stage_of(engine)
    assert stage(frame_of(a)).trust.max() == 0 and not engine.calls
    assert stage(frame_of(b, 1)).trust.max() > 0
    assert stage(frame_of(c, 2, discontinuity=True)).trust.max() == 0 and len(engine.calls) == 1
    stage.close()
    assert engine.closed


def test_another_scene_is_a_cut_and_a_lamp_is_not():
    day = texture(72, 96, 1) * torch.tensor([0.9, 0.6, 0.3]).view(1, 3, 1, 1)
    other = texture(72, 96, 2) * torch.tensor([0.2, 0.4, 0.9]).view(1, 3, 1, 1)
    stage = stage_of(Known(72, 96, 0, 0))
    found = [bool(stage(frame_of(rgb, i)).trust.max() > 0) for i, rgb in enumerate((day, day * 0.9, other, other))]
    assert found == [False, True, False, True]


def test_new_settings_are_taken_from_the_next_frame_on():
    before, now = pan(2, 48, 64, (3, -2))
    stage = stage_of(Known(48, 64, 3, -2, back=(30, 30)))
    stage(frame_of(before))
    assert stage(frame_of(now, 1)).trust.max() == 0  # does not return
    stage.update(ConfidenceSettings(check="off"))
    assert stage(frame_of(now, 2)).trust.max() > 0


def test_an_engine_that_is_no_flow_network_is_refused():
    with pytest.raises(EngineError, match="expected inputs cur, prev"):
        stage_of(Known(48, 64, 0, 0, names=("x", "level")))
    engine = Known(48, 64, 0, 0)
    engine.inputs = tuple(TensorSpec(name, "float32", (1, 3, None, None)) for name in ("cur", "prev"))
    with pytest.raises(EngineError, match="one fixed size"):
        stage_of(engine)


def test_an_exported_network_runs_in_it(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from warpfuse.export.raft_bundle import export_raft_small
    from warpfuse.export.raft_small import RaftSmall

    torch.manual_seed(0)
    network = RaftSmall(iterations=2).eval()
    bundle = export_raft_small(tmp_path / "flow", network, (96, 72))
    before, now = pan(2, 72, 96, (3, -2))
    stage = stage_of(open_engine(bundle.network()))
    stage(frame_of(before))
    out = stage(frame_of(now, 1))
    with torch.no_grad():
        there, back = network(now, before)
    assert torch.allclose(out.flow, there, atol=1e-3)
    assert not torch.allclose(out.flow, back, atol=1e-3)  # the control: the other direction
    stage.close()
