"""The floor of a network is what its convolutions and products have to do, counted by hand here."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from warpfuse.benchmark.machine import Machine
from warpfuse.benchmark.work import Work, work_of
from warpfuse.engine.errors import BadInput

MACHINE = Machine("a processor", 2, 4.0, "cpu", None, None, "Linux", {}, "float32", 1e9, 1e8)


class Layers(torch.nn.Module):
    """Every kind of layer that is counted, on [n, 4, h, w]."""

    def __init__(self):
        super().__init__()
        self.down = torch.nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.each = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = torch.nn.ConvTranspose2d(8, 2, 2, stride=2)
        self.mix = torch.nn.Linear(2, 5)

    def forward(self, x):
        y = self.up(self.each(self.down(x)))
        n, c, h, w = y.shape
        y = y.permute(0, 2, 3, 1).reshape(n, h * w, c)  # arithmetic on shapes, which inference must see through
        y = self.mix(y)
        return y @ y.transpose(1, 2)


@pytest.fixture
def layers(tmp_path):
    path = tmp_path / "layers.onnx"
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    with torch.no_grad():
        torch.onnx.export(
            Layers(), (torch.rand(1, 4, 8, 6),), path, input_names=["x"], output_names=["y"], dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )  # fmt: skip
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n, h, w", [(1, 8, 6), (3, 16, 8)])
def test_operations_are_those_counted_by_hand(layers, n, h, w):
    pixels, small = h * w, h * w // 4
    down, each, up = small * 8 * 4 * 9, small * 8 * 9, small * 8 * 2 * 4
    mix, product = pixels * 2 * 5, pixels * pixels * 5
    assert work_of(layers, {"x": (n, 4, h, w)}).flops == 2 * n * (down + each + up + mix + product)


@pytest.mark.filterwarnings("ignore")
def test_bytes_are_weights_inputs_and_outputs_once(layers):
    weights = sum(parameter.numel() for parameter in Layers().parameters())
    constants = work_of(layers, {"x": (1, 4, 8, 6)}).bytes - 4 * (weights + 4 * 48 + 48 * 48)
    assert 0 <= constants < 300, "what is left are constants of the reshaping"


def test_halves_count_as_two_bytes(tmp_path):
    values = numpy_helper.from_array(torch.zeros(100, 100, dtype=torch.float16).numpy(), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 100])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 100])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "half", [x], [y], [values])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "half.onnx")
    assert work_of(tmp_path / "half.onnx", {"x": (1, 100)}) == Work(20_000, 2 * (10_000 + 200))


def test_the_floor_is_the_slower_of_the_two_rates():
    assert Work(flops=2_000_000, bytes=100).floor_ms(MACHINE) == pytest.approx(2.0)
    assert Work(flops=100, bytes=300_000).floor_ms(MACHINE) == pytest.approx(3.0)


def test_operations_on_8_bit_tensors_have_their_own_rate(tmp_path):
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.uint8(0), "zero")
    inner = numpy_helper.from_array(np.ones((100, 100), np.int8), "w")
    outer = numpy_helper.from_array(np.ones((100, 7), np.float32), "v")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 100])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "v"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "bytes", [x], [y], [scale, zero, inner, outer])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "bytes.onnx")
    work = work_of(tmp_path / "bytes.onnx", {"x": (1, 100)})
    assert (work.flops, work.integer_ops) == (2 * 700, 2 * 10_000)
    fast = replace(MACHINE, integer_ops_per_s=1e10, bytes_per_s=1e12)
    assert work.floor_ms(fast) == pytest.approx(0.0014 + 0.002)
    assert work.floor_ms(replace(fast, integer_ops_per_s=None)) == pytest.approx(0.0014 + 0.02), "control: as if floats"


def test_a_shape_that_cannot_be_told_is_an_error_not_a_floor_of_nothing(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["found"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["found"], ["places"]),
        helper.make_node("MatMul", ["places", "x"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "odd", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "odd.onnx")
    with pytest.raises(BadInput, match=r"odd\.onnx: the shape of node 'MatMul' cannot be told"):
        work_of(tmp_path / "odd.onnx", {"x": (2, 2)})
