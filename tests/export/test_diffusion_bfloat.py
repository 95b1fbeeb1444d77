"""bfloat16 is in the graph, the graph builds for a card, and what it computes is checked by rounding as it would."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import nn

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.tensorrt_build import plan_for
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion.bfloat import emulate, raise_opset
from warpfuse.export.diffusion.half import BFLOAT, to_half
from warpfuse.export.diffusion.written import write_network
from warpfuse.export.onnx_writing import ExportError, trace


class Block(nn.Module):
    """A convolution, a norm, a mean over axes, an up-sampling, attention."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = nn.functional.interpolate(self.norm(self.conv(x)), scale_factor=2.0)
        y = (y - y.mean(dim=(2, 3), keepdim=True)).flatten(2).transpose(1, 2)
        return self.out((y @ y.transpose(1, 2)).softmax(-1) @ y)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Block().eval()


X = {"x": torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))}


def converted(network):
    model = trace(network, X, ["y"])
    to_half(model, products_in_single=False, kind=BFLOAT)
    raise_opset(model)
    return model


def test_types_lie_in_the_graph_and_islands_are_single(network):
    model = converted(network)
    onnx.checker.check_model(model, full_check=True)
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    by_type = {node.op_type: node for node in model.graph.node}
    assert weights[by_type["Conv"].input[1]] == TensorProto.BFLOAT16
    assert TensorProto.FLOAT16 not in weights.values()
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert ends == [TensorProto.FLOAT] * 2


def test_it_is_emulated_to_the_bit(network):
    """One convolution alone: products of rounded numbers, summed in single precision, rounded once."""
    model = trace(network.conv, X, ["y"])
    to_half(model, products_in_single=False, kind=BFLOAT)
    emulate(model)
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": X["x"].numpy()})
    weight, bias = (value.bfloat16().float() for value in (network.conv.weight, network.conv.bias))
    wide = nn.functional.conv2d(X["x"].bfloat16().float(), weight, bias, padding=1)
    apart = np.abs(found - wide.bfloat16().float().detach().numpy())
    assert (apart == 0).mean() > 0.99 and apart.max() < 2**-7 * np.abs(found).max()  # the order of sums may tip a digit
    assert np.abs(found - wide.detach().numpy()).max() > 0  # control: the rounding is not optimised away


def test_a_file_of_bfloat16_is_checked_like_the_others(network, tmp_path, monkeypatch):
    written = write_network(tmp_path / "n.onnx", network, X, ["y"], "bfloat")
    (agreement,) = written.agreements
    assert agreement.agrees and agreement.worst > 1e-4 * written.allowed
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]
    monkeypatch.setattr("warpfuse.export.diffusion.written.TOLERANCE", {"bfloat": 1e-6})
    with pytest.raises(ExportError, match=r"n\.onnx: y is off by"):
        write_network(tmp_path / "n.onnx", network, X, ["y"], "bfloat")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_builds_for_a_card(network, tmp_path):
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    onnx.save_model(converted(network), tmp_path / "n.onnx")
    assert plan_for(TENSORRT_RTX, tmp_path / "n.onnx", None, "sm89", ArtifactCache(tmp_path / "plans")).is_file()
