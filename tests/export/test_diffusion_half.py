"""Half precision: the graph has it, and where it would overflow or blur a timestep there are islands."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import nn

from warpfuse.export.diffusion.half import to_half
from warpfuse.export.onnx_writing import trace


def converted(network, inputs, outputs, **options):
    model = trace(network, inputs, outputs)
    to_half(model, **{"products_in_single": False, **options})
    return model


def run(model, inputs):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


class Angles(nn.Module):
    """A timestep as sines, then a layer: what a UNet does with it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.exp(-torch.arange(16) * 0.5))
        self.layer = nn.Linear(32, 32)

    def forward(self, timestep):
        angles = timestep[:, None] * self.frequencies
        return self.layer(torch.cat((angles.sin(), angles.cos()), dim=1))


def test_a_timestep_keeps_its_fraction():
    torch.manual_seed(0)
    inputs = {"timestep": torch.tensor([998.75, 501.3])}  # half precision has steps of a half there
    wanted = Angles()
    (found,) = run(converted(wanted.eval(), inputs, ["y"]), inputs)
    blurred = wanted(inputs["timestep"].half().float()).detach().numpy()
    assert np.abs(found - wanted(inputs["timestep"]).detach().numpy()).max() < 5e-3
    assert np.abs(blurred - wanted(inputs["timestep"]).detach().numpy()).max() > 2e-2  # the control: no island


class Attention(nn.Module):
    """Products of queries and keys that pass 65504 before they are scaled down."""

    def forward(self, q, k):
        return ((q @ k.transpose(1, 2)) * 1e-3).softmax(-1)


@pytest.mark.parametrize("guarded", [True, False])
def test_products_before_a_softmax_overflow_unless_they_are_an_island(guarded):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 8, 64, generator=generator) * 150 for _ in range(2))
    model = converted(Attention(), {"q": q, "k": k}, ["y"], products_in_single=guarded)
    with np.errstate(all="ignore"):  # ONNX Runtime would compute in single precision on a CPU; this does as it is told
        (found,) = ReferenceEvaluator(model).run(None, {"q": q.numpy(), "k": k.numpy()})
    gap = np.abs(found - Attention()(q, k).numpy()).max()
    assert gap < 2e-3 if guarded else not gap < 0.5  # not a number, mostly


class Block(nn.Module):
    """Norms, a convolution, an up-sampling; the second output is used inside too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.LayerNorm(12)

    def forward(self, x):
        middle = self.conv(self.norm(x))
        return self.last(nn.functional.interpolate(middle, scale_factor=2.0)), middle


def test_types_lie_in_the_graph_and_its_ends_keep_theirs():
    torch.manual_seed(0)
    inputs = {"x": torch.randn(1, 8, 6, 6) * 3}
    network = Block().eval()
    model = converted(network, inputs, ["y", "middle"])
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert ends == [TensorProto.FLOAT] * 3
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    by_type = {node.op_type: node for node in model.graph.node}
    assert weights[by_type["Conv"].input[1]].data_type == TensorProto.FLOAT16
    assert weights[by_type["LayerNormalization"].input[1]].data_type == TensorProto.FLOAT
    for found, wanted in zip(run(model, inputs), network(inputs["x"]), strict=True):
        gap = np.abs(found - wanted.detach().numpy()).max()
        assert 0 < gap < 2e-2  # near, and not by having stayed in single precision


def test_a_mask_of_the_lowest_number_becomes_minus_infinity():
    class Masked(nn.Module):
        def forward(self, x):
            return (x + torch.full((4, 4), torch.finfo(torch.float32).min).triu(1)).softmax(-1)

    x = {"x": torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))}
    (found,) = run(converted(Masked(), x, ["y"]), x)
    assert np.abs(found - Masked()(x["x"]).numpy()).max() < 2e-3
