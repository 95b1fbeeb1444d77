"""Converting convolutions of an ONNX graph to 8-bit integers.

Such a convolution is written between QuantizeLinear and DequantizeLinear, with DequantizeLinear after its weights. ONNX
Runtime computes this pattern in integers. Activations have one scale for each tensor, from the observed range of its
values. Weights have one scale for each channel. Biases have 32 bits, and sums are exact. Activations are unsigned and
weights signed, as VNNI multiplies them: with unsigned weights ONNX Runtime 1.32 takes five times as long. Without VNNI
an option makes ONNX Runtime exact (`engine/backends/onnxruntime.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .onnx_writing import ExportError

Feed = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Range:
    """The observed range of a tensor's values. It includes 0, since padding has to be exact."""

    least: float
    most: float

    def scale(self, levels: int) -> np.float32:
        """The size of a step, if the range is divided into `levels` steps."""
        return np.float32(max(self.most - self.least, 1e-6) / levels)

    def zero(self, levels: int) -> int:
        """The number of the step for the value 0."""
        return round(-self.least / float(self.scale(levels)))


def convolutions(model: onnx.ModelProto, kept: Sequence[str] = ()) -> list[str]:
    """Names of the weights of all convolutions, in the order of the graph, without those of the layers `kept`.

    Raises ExportError if the network has no convolution called as in `kept`.
    """
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    unknown = set(kept) - {name.removesuffix(".weight") for name in weights}
    if unknown:
        raise ExportError(
            f"to be kept in float are {', '.join(sorted(unknown))}, which the network has no convolution of"
        )
    return [name for name in weights if name.removesuffix(".weight") not in kept]


def ranges(
    model: onnx.ModelProto, weights: Sequence[str], feeds: Iterable[Feed], share: float = 0.97
) -> dict[str, Range]:
    """Ranges of the inputs and outputs of the convolutions with these weights, by tensor name.

    feeds  inputs of the network, on which it is run
    share  share of the feeds whose values are all within the range. Larger values of the rest are clipped, which makes
           the steps finer for all
    """
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights]
    return observed(model, [name for node in nodes for name in (node.input[0], node.output[0])], feeds, share)


def observed(
    model: onnx.ModelProto, names: Iterable[str], feeds: Iterable[Feed], share: float,
    save: Callable[[onnx.ModelProto], bytes | str] = onnx.ModelProto.SerializeToString,
) -> dict[str, Range]:  # fmt: skip
    """Ranges of tensors in runs of a model in single precision, by name. feeds, share: see `ranges`.

    save  gives the bytes of a model, or writes it and gives its path: protobuf has a limit of 2 GB
    """
    import onnxruntime

    names = list(dict.fromkeys(names))
    size, outputs = len(model.graph.node), len(model.graph.output)
    ends = [f"{name}.{end}" for name in names for end in ("least", "most")]
    for name in names:  # the least and largest value alone, since all tensors at once need gigabytes
        for kind, end in (("ReduceMin", f"{name}.least"), ("ReduceMax", f"{name}.most")):
            model.graph.node.append(helper.make_node(kind, [name], [end], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, []))
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(save(model), options, providers=["CPUExecutionProvider"])
    finally:
        del model.graph.node[size:], model.graph.output[outputs:]
    seen = np.array([session.run(ends, feed) for feed in feeds], np.float64).reshape(-1, len(names), 2)
    least, most = np.quantile(seen[..., 0], 1 - share, axis=0), np.quantile(seen[..., 1], share, axis=0)
    return {name: Range(min(0.0, float(a)), max(0.0, float(b))) for name, a, b in zip(names, least, most, strict=True)}


def in_integers(
    model: onnx.ModelProto, weights: Sequence[str], seen: Mapping[str, Range], bits: int = 8
) -> onnx.ModelProto:
    """A copy of the model in which the convolutions with these weights are in integers.

    weights  names of their weights, float32 or cast from float16
    seen     ranges of their inputs and outputs (`ranges`)
    bits     bits of weights and activations, 2 to 8; fewer than 8 are for comparison
    """
    levels = 2**bits - 1
    given = onnx.ModelProto()
    given.CopyFrom(model)
    writer = _Writer(given.graph, levels)
    for node in given.graph.node:
        if node.op_type == "Cast" and node.output[0] in weights:
            continue  # these weights become integers
        if node.op_type == "Conv" and node.input[1] in weights:
            writer.convolution(node, seen)
        else:
            writer.nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in writer.nodes]
    needed = {name for node in nodes for name in node.input}
    stored = [tensor for tensor in (*given.graph.initializer, *writer.stored) if tensor.name in needed]
    stored = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in stored]
    del given.graph.node[:], given.graph.initializer[:]
    given.graph.node.extend(nodes)
    given.graph.initializer.extend(stored)
    onnx.checker.check_model(given, full_check=True)
    return given


class _Writer:
    """Nodes and stored tensors of the new graph."""

    def __init__(self, onnx_graph: onnx.GraphProto, levels: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []
        self._values = {tensor.name: tensor for tensor in onnx_graph.initializer}
        for node in onnx_graph.node:
            if node.op_type == "Cast" and node.input[0] in self._values:
                self._values[node.output[0]] = self._values[node.input[0]]
        self._levels = levels
        self._rounded: set[str] = set()

    def convolution(self, node: onnx.NodeProto, seen: Mapping[str, Range]) -> None:
        """Write a convolution with its conversions from and to float."""
        entry, weight, *bias = node.input
        result = node.output[0]
        step = self._activation(entry, entry, seen[entry])
        steps = self._weight(weight) * step
        if bias:
            self._bias(f"{weight}.bias", bias[0], steps)
        inputs = [f"{entry}.rounded", f"{weight}.rounded", *([f"{weight}.bias.rounded"] if bias else [])]
        made = onnx.NodeProto()
        made.CopyFrom(node)
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.append(f"{result}.sum")
        self.nodes.append(made)
        self._activation(result, f"{result}.sum", seen[result], result)

    def _activation(self, name: str, value: str, range_: Range, rounded: str | None = None) -> np.float32:
        """Round the tensor `value` to the steps of `range_`, as tensor `rounded`. Returns the size of a step."""
        rounded = rounded or f"{name}.rounded"
        step, zero = range_.scale(self._levels), range_.zero(self._levels)
        if rounded in self._rounded:
            return step
        self._rounded.add(rounded)
        about = self._store(name, step, np.uint8(zero))
        self.nodes.append(helper.make_node("QuantizeLinear", [value, *about], [f"{name}.steps"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}.steps", *about], [rounded]))
        return step

    def _weight(self, name: str) -> NDArray[np.float32]:
        """Store weights [out, in, kh, kw] as integers. Returns the size of a step for each output channel, [out]."""
        values = numpy_helper.to_array(self._values[name]).astype(np.float32)
        half = self._levels // 2
        steps = np.asarray(np.abs(values).reshape(len(values), -1).max(1).clip(1e-9) / half, np.float32)
        counts = np.rint(values / steps[:, None, None, None]).clip(-half, half)
        self._dequantised(name, counts.astype(np.int8), steps, np.zeros(len(steps), np.int8))
        return steps

    def _bias(self, name: str, of: str, steps: NDArray[np.float32]) -> None:
        values = numpy_helper.to_array(self._values[of]).astype(np.float64)
        counts = np.rint(values / steps).clip(-(2**31), 2**31 - 1).astype(np.int32)
        self._dequantised(name, counts, steps, np.zeros(len(steps), np.int32))

    def _dequantised(
        self, name: str, counts: NDArray[np.generic], steps: NDArray[np.float32], zeros: NDArray[np.generic]
    ) -> None:
        self.stored.append(numpy_helper.from_array(counts, f"{name}.steps"))
        about = self._store(name, steps, zeros)
        node = helper.make_node("DequantizeLinear", [f"{name}.steps", *about], [f"{name}.rounded"], axis=0)
        self.nodes.append(node)

    def _store(
        self, name: str, step: NDArray[np.float32] | np.float32, zero: NDArray[np.generic] | np.uint8
    ) -> list[str]:
        self.stored.append(numpy_helper.from_array(np.asarray(step), f"{name}.step"))
        self.stored.append(numpy_helper.from_array(np.asarray(zero), f"{name}.zero"))
        return [f"{name}.step", f"{name}.zero"]
