"""The mask of a network goes with the things in the picture, and is the network's own where the flow is not trusted."""

import pytest
import torch

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import EngineError
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.controls.map_network import MapNetwork
from warpfuse.stages.frame import Motion, Picture, Stamp
from warpfuse.stages.masking.mask import finished
from warpfuse.stages.masking.network_mask import NetworkMask
from warpfuse.stages.masking.settings import MaskSettings

H, W = 32, 48
SETTINGS = MaskSettings(kind="network", of="x", feather_px=0, steady=0.75)


class Found:
    """An engine that finds what it is told to; counts its calls."""

    inputs = (TensorSpec("rgb", "float32", (1, 3, H, W)),)
    outputs = (TensorSpec("map", "float32", (1, 1, H, W)),)
    backend, device = "none", "cpu"

    def __init__(self, *masks):
        self.masks, self.calls = list(masks), 0

    def __call__(self, inputs):
        self.calls += 1
        return {"map": self.masks.pop(0)}

    def close(self):
        self.masks = []


def square(left):
    mask = torch.zeros(1, 1, H, W)
    mask[..., 8:24, left : left + 12] = 1
    return mask


def frame(number, hold="", **stamp):
    return Picture(Stamp(number, number, hold=hold, **stamp), torch.rand(1, 3, H, W))


def motion(number, right_px, trust, hold="", **stamp):
    """Everything moved to the right by so many pixels: it was to the left a frame ago."""
    flow = torch.zeros(1, 2, H, W)
    flow[:, 0] = -right_px
    return Motion(Stamp(number, number, hold=hold, **stamp), flow, torch.full((1, 1, H, W), float(trust)))


def two_masks(second, trust, settings=SETTINGS, **stamp):
    """The second of two frames' masks, the things 4 px further right in it; the first is a square at 10."""
    stage = NetworkMask(MapNetwork(Found(square(10), second)), settings)
    stage(frame(0), motion(0, 0, 0))
    return stage(frame(1, **stamp), motion(1, 4, trust, **stamp)).weight


def test_what_flickers_is_held_where_the_flow_is_trusted():
    """A network that loses the thing for a frame: the mask of the frame before, where the thing is now."""
    lost = torch.zeros(1, 1, H, W)
    held = two_masks(lost, trust=1)
    assert (held[square(14) == 1] - 0.75).abs().max() < 0.01 and held[square(14) == 0].max() == 0
    assert two_masks(lost, trust=0).max() == 0, "control: without trust the network is believed"
    assert two_masks(lost, trust=1, settings=SETTINGS.model_copy(update={"steady": 0.0})).max() == 0


def test_behind_a_cut_the_mask_is_the_new_frames_own():
    assert torch.equal(two_masks(square(30), trust=1, discontinuity=True), square(30))


def test_a_held_frame_has_the_last_mask_where_its_things_are_now():
    engine = Found(square(10))
    stage = NetworkMask(MapNetwork(engine), SETTINGS)
    stage(frame(0), motion(0, 0, 0))
    for number in (1, 2):
        held = stage.held(frame(number, "warp"), motion(number, 4, 0.5, "warp"))
        assert torch.equal(held.weight, square(10 + 4 * number))
    assert not stage.held(frame(3, "repeat"), motion(3, 4, 0.5, "repeat")).tensors
    assert engine.calls == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("feather_px", [0, 1, 5, 64])
def test_a_flat_mask_is_flat_to_the_bit_behind_every_feather(device, feather_px):
    ops = arithmetic(device)  # the formulas of a card run on tensors of a CPU as well
    for level in (0.0, 1.0):
        for invert in (False, True):
            settings = SETTINGS.model_copy(update={"feather_px": feather_px, "invert": invert})
            mask = finished(torch.full((1, 1, 200, 208), level), settings, ops)
            assert (mask == (1 - level if invert else level)).all()


def test_what_is_next_to_sure_is_sure():
    mask = finished(torch.tensor([0.002, 0.5, 0.998]).view(1, 1, 1, 3), SETTINGS, arithmetic("cpu"))
    assert mask.flatten().tolist() == [0, 0.5, 1]


def test_a_network_of_other_inputs_is_told():
    engine = Found()
    engine.inputs = (TensorSpec("x", "float32", (1, 3, H, W)),)
    with pytest.raises(EngineError, match=r"expected input rgb and output map; got x and map"):
        MapNetwork(engine)
