"""Converting an ONNX graph from single precision to float16 or bfloat16, with islands of single precision.

The types are in the graph itself, since some builders have no flags for them. Islands are nodes that overflow or lose
too much in half precision: norms, softmax, powers and roots; sines of a timestep and logarithms of weights, with all
nodes that lead to them; and optionally the products before a softmax.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SINGLE, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
_NUMPY: dict[int, Any] = {HALF: np.float16, BFLOAT: ml_dtypes.bfloat16}
_NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax")
_POWERS = ("Sin", "Cos", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceL2")
_MADE = ("Range", "ConstantOfShape")  # in single precision by definition
_ASKED = ("IsNaN", "IsInf")  # IsInf takes no half precision in this operator set
ISLANDS = frozenset((*_NORMS, *_POWERS, *_MADE, *_ASKED))
_ONLY_FIRST = frozenset(("Resize", "Upsample"))  # other inputs are scales, which are single by definition
_LAYOUT = frozenset(("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Split"))
_WITH_ALL_BEFORE = frozenset(("Sin", "Cos", "Log"))


def to_half(model: onnx.ModelProto, *, products_in_single: bool, kind: int = HALF) -> None:
    """Convert in place. Inputs and outputs of the graph keep their types.

    kind                HALF or BFLOAT
    products_in_single  matrix products before a softmax are islands too, unless both factors are scaled before: sums
                        of unscaled ones can exceed 65504

    Note: fused attention. Runtimes fuse product, softmax and product into one kernel only if both products are in half
    precision. This kernel adds in single precision. With a product in an island TensorRT loses the kernel, and writes
    the scores of all pairs of tokens to memory. Torch's exporter scales query and key before the product, so its
    products need no island.
    """
    onnx_graph = model.graph
    _fold_constants(onnx_graph)
    _Conversion(onnx_graph, _float_tensors(model), _islands(onnx_graph, products_in_single), kind).run()


def _fold_constants(onnx_graph: onnx.GraphProto) -> None:
    """Turn float constants into initializers, which can be converted without a node."""
    kept = []
    for node in onnx_graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" and node.attribute[0].name == "value" else None
        if value is not None and value.data_type == SINGLE:
            onnx_graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), node.output[0]))
        else:
            kept.append(node)
    del onnx_graph.node[:]
    onnx_graph.node.extend(kept)


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all tensors in single precision. Shape inference runs without weights, since it is limited to 2 GB."""
    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    bare = skeleton.graph
    bare.name = "types"
    bare.node.extend(model.graph.node)
    bare.input.extend(model.graph.input)
    bare.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.data_type == SINGLE:
            bare.input.append(helper.make_tensor_value_info(tensor.name, SINGLE, list(tensor.dims)))
        else:
            bare.initializer.append(tensor)
    found = onnx.shape_inference.infer_shapes(skeleton).graph
    values = (*found.value_info, *found.input, *found.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == SINGLE}


def _islands(onnx_graph: onnx.GraphProto, products: bool) -> set[int]:
    """Indices of the nodes that stay in single precision."""
    makers = {output: number for number, node in enumerate(onnx_graph.node) for output in node.output}
    found = {number for number, node in enumerate(onnx_graph.node) if node.op_type in ISLANDS}
    # Arithmetic on shapes and constants only is exact in single precision, and is folded when the file is loaded.
    known = {"", *(tensor.name for tensor in onnx_graph.initializer)}
    for number, node in enumerate(onnx_graph.node):
        if node.op_type in ("Constant", "Shape") or known.issuperset(node.input):
            known.update(node.output)
            found.add(number)

    def before(number: int, stop_at: str | None) -> Iterator[int]:
        waiting, seen = [number], {number}
        while waiting:
            for name in onnx_graph.node[waiting.pop()].input:
                maker = makers.get(name)
                if maker is not None and maker not in seen:
                    seen.add(maker)
                    yield maker
                    if onnx_graph.node[maker].op_type != stop_at:
                        waiting.append(maker)

    for number, node in enumerate(onnx_graph.node):
        if node.op_type in _WITH_ALL_BEFORE:
            found.update(before(number, None))
        elif products and node.op_type == "Softmax":
            way = set(before(number, "MatMul"))
            multiplied = [n for n in way if onnx_graph.node[n].op_type == "MatMul"]
            if not all(
                _scaled(onnx_graph, makers, known, name) for n in multiplied for name in onnx_graph.node[n].input
            ):
                found.update(way)
    return found


def _scaled(onnx_graph: onnx.GraphProto, makers: dict[str, int], known: set[str], name: str) -> bool:
    """The tensor is another one times a constant, possibly with its layout changed."""
    while (maker := makers.get(name)) is not None:
        node = onnx_graph.node[maker]
        if node.op_type == "Mul":
            return any(factor in known for factor in node.input)
        if node.op_type not in _LAYOUT:
            return False
        name = node.input[0]
    return False


class _Conversion:
    """The conversion of one graph. Every float tensor is provided in the precisions that its readers need, with at most
    one Cast."""

    def __init__(self, onnx_graph: onnx.GraphProto, floats: set[str], islands: set[int], narrow: int) -> None:
        self._graph = onnx_graph
        self._narrow = narrow
        self._floats = floats
        self._islands = islands
        self._weights = {tensor.name: tensor for tensor in onnx_graph.initializer}
        self._names: dict[tuple[str, int], str] = {(value.name, SINGLE): value.name for value in onnx_graph.input}
        self._outputs = {value.name for value in onnx_graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._converted: list[onnx.TensorProto] = []

    def run(self) -> None:
        for number, node in enumerate(self._graph.node):
            self._add(node, SINGLE if number in self._islands else self._narrow)
        for value in self._graph.output:
            if value.name in self._floats and self._names.get((value.name, SINGLE)) != value.name:
                self._nodes.append(_cast(self._names[value.name, self._narrow], value.name, SINGLE))
        others = [tensor for tensor in self._graph.initializer if tensor.name not in self._floats]
        initializers = [*others, *self._converted]
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(initializers)

    def _add(self, node: onnx.NodeProto, kind: int) -> None:
        fresh = onnx.NodeProto()
        fresh.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in self._floats:
                asked = SINGLE if node.op_type in _ONLY_FIRST and place > 0 else kind
                fresh.input[place] = self._in(name, asked)
        if node.op_type == "Cast" and node.output[0] in self._floats:
            fresh.attribute[0].i = kind
        for place, name in enumerate(node.output):
            if name in self._floats:
                renamed = f"{name}.half" if kind == self._narrow and name in self._outputs else name
                fresh.output[place] = self._names[name, kind] = renamed
        self._nodes.append(fresh)

    def _in(self, name: str, kind: int) -> str:
        """Name of a tensor in a precision. If it does not exist in it yet, it is added."""
        if (name, kind) not in self._names:
            ending = f"{name}.{'half' if kind == self._narrow else 'single'}"
            if name in self._weights:
                self._converted.append(_converted(self._weights[name], ending, kind))
            else:
                other = self._names[name, self._narrow if kind == SINGLE else SINGLE]
                self._nodes.append(_cast(other, ending, kind))
            self._names[name, kind] = ending
        return self._names[name, kind]


def _cast(name: str, into: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [into], name=f"{into}.cast", to=kind)


def _converted(tensor: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if kind != SINGLE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a mask of -3e38 becomes minus infinity, as it should
            values = values.astype(_NUMPY[kind])
    return numpy_helper.from_array(values, name)
