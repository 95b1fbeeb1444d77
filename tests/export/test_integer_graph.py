"""Convolutions in integers: as near as their bits allow, exact in what they add, and each row for itself."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from warpfuse.engine.backends import onnxruntime as backend
from warpfuse.engine.open import open_engine
from warpfuse.export.integer_graph import Range, convolutions, in_integers, ranges
from warpfuse.export.onnx_writing import ExportError, store_in_half

CHANNELS = 16


def network(weights, bias=True, half=False):
    """x [n,16,h,w] -> y: a convolution for each of the weights [16,16,3,3], padded, LeakyReLU between."""
    rng = np.random.default_rng(1)
    nodes, stored, last = [], [], "x"
    for k, values in enumerate(weights):
        names = [f"conv{k}.weight", f"conv{k}.bias"][: 1 + bias]
        stored.append(numpy_helper.from_array(values.astype(np.float32), names[0]))
        if bias:
            stored.append(numpy_helper.from_array(rng.normal(0, 0.1, CHANNELS).astype(np.float32), names[1]))
        out = "y" if k == len(weights) - 1 else f"sum{k}"
        nodes.append(helper.make_node("Conv", [last, *names], [out], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        if out != "y":
            nodes.append(helper.make_node("LeakyRelu", [out], [f"bent{k}"], alpha=0.1))
            last = f"bent{k}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CHANNELS, "h", "w"]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], stored), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    if half:
        store_in_half(model.graph)
    onnx.checker.check_model(model)
    return model


def random_weights(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (count, CHANNELS, CHANNELS, 3, 3)).astype(np.float16)


def picture(seed=0, rows=1):
    return np.random.default_rng(seed).normal(0, 1, (rows, CHANNELS, 12, 20)).astype(np.float32)


def run(model, x):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def quantised(model, bits=8):
    weights = convolutions(model)
    return in_integers(model, weights, ranges(model, weights, [{"x": picture(seed)} for seed in range(3)]), bits)


def noise(model, made, x):
    """Root mean square of what rounding costs, as a share of the values'."""
    wanted = run(model, x)
    return np.sqrt(np.mean((run(made, x) - wanted) ** 2) / np.mean(wanted**2))


@pytest.mark.parametrize("half", [False, True])
def test_eight_bits_are_near_and_each_bit_less_costs(half):
    model = network(random_weights(3), half=half)
    costs = [noise(model, quantised(model, bits), picture(0)) for bits in (8, 7, 6, 5)]
    assert costs[0] < 0.03
    assert all(1.5 * few < fewer for few, fewer in itertools.pairwise(costs)), costs


def kinds(model, folder):
    """What ONNX Runtime runs: the operators of the graph as it has rewritten it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "rewritten.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options)
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def test_convolutions_run_in_integers(tmp_path):
    model = network(random_weights(2))
    assert {"QLinearConv", "Conv"} & kinds(quantised(model), tmp_path) == {"QLinearConv"}
    assert {"QLinearConv", "Conv"} & kinds(model, tmp_path) == {"Conv"}, "control"


@pytest.mark.parametrize("told", [True, False])
def test_sums_are_exact_at_the_ends_of_the_range(tmp_path, monkeypatch, told):
    """Greatest activations times greatest weights. A processor without VNNI has to be told: `open` does, and where
    there is VNNI being told as well changes nothing."""
    assert np.iinfo(np.int16).max < 2 * 255 * 127, "control: a pair of products is more than 16 bits hold"
    if told:
        monkeypatch.setattr(backend, "cpu_flags", frozenset)
    model, most = network(np.ones((1, CHANNELS, CHANNELS, 3, 3)), bias=False), 9.0 * CHANNELS
    made = in_integers(model, convolutions(model), {"x": Range(0.0, 1.0), "y": Range(0.0, most)})
    onnx.save(made, tmp_path / "net.onnx")
    engine = open_engine(tmp_path / "net.onnx", "onnxruntime", "cpu", threads=1)
    found = engine({"x": torch.ones(1, CHANNELS, 8, 8)})["y"]
    torch.testing.assert_close(found[..., 1:-1, 1:-1], torch.full((1, CHANNELS, 6, 6), most), rtol=1e-6, atol=0)
    engine.close()


def dynamic():
    """x -> y, rounded to 256 steps of the range of the whole call."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["steps", "step", "zero"]),
        helper.make_node("DequantizeLinear", ["steps", "step", "zero"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CHANNELS, "h", "w"]) for name in "xy")
    return helper.make_model(
        helper.make_graph(nodes, "dynamic", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x = np.concatenate([k * picture(k) for k in (1, 2, 3)])
    alone = {name: [run(model, row[None])[0] for row in x] for name, model in models().items()}
    together = {name: run(model, x) for name, model in models().items()}
    same = {name: all(np.array_equal(a, b) for a, b in zip(alone[name], together[name], strict=True)) for name in alone}
    assert same == {"seen before": True, "seen in the call": False}


def models():
    return {"seen before": quantised(network(random_weights(2))), "seen in the call": dynamic()}


def test_layers_to_be_kept_are_and_one_that_is_not_there_is_refused():
    model = network(random_weights(3))
    assert convolutions(model, ("conv0", "conv2")) == ["conv1.weight"]
    with pytest.raises(ExportError, match="kept in float are leave, which the network has no convolution of"):
        convolutions(model, ("conv0", "leave"))


def test_zero_stays_zero():
    """Padding is zeros, so zero has to be one of the steps; a range without it would move every border."""
    model = network(random_weights(1), bias=False)
    made = in_integers(model, convolutions(model), {"x": Range(-0.7, 2.1), "y": Range(-3.3, 1.9)})
    assert not run(made, np.zeros_like(picture())).any()
    assert run(made, picture()).any(), "control"


def test_the_ranges_are_those_of_all_feeds():
    model = network(random_weights(2))
    feeds = [{"x": picture(seed)} for seed in range(3)]
    together, first = (ranges(model, convolutions(model), some, share=1.0) for some in (feeds, feeds[:1]))
    assert together["x"].least == min(feed["x"].min() for feed in feeds)
    assert together["x"].most == max(feed["x"].max() for feed in feeds)
    assert set(together) == {"x", "sum0", "bent0", "y"}
    assert together != first, "control"


def test_a_call_in_a_hundred_that_goes_too_far_is_cut_off():
    model = network(random_weights(1))
    feeds = [{"x": picture(seed)} for seed in range(99)] + [{"x": 100 * picture(99)}]
    most = {share: ranges(model, convolutions(model), feeds, share)["x"].most for share in (0.97, 1.0)}
    assert most[0.97] < 8 and most[1.0] > 100
