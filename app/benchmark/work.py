"""How much a network has to do for one call: the floor under its time.

Counted from the ONNX file: the multiplications and additions of convolutions and matrix products, twice each; and the
bytes that must move whatever is kept in caches: the weights as stored, inputs and outputs once. What is between two
8-bit tensors is counted apart: it has another rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpfuse.engine.errors import BadInput

if TYPE_CHECKING:
    from warpfuse.benchmark.machine import Machine

Shape = tuple[int, ...]

_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}
"""Of a number, by ONNX's element types: float, uint8, int8, int32, int64, bool, float16, double, bfloat16."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one call. flops: floating-point operations; bytes: least traffic to memory; integer_ops: of 8-bit integers."""

    flops: int
    bytes: int
    integer_ops: int = 0

    def floor_ms(self, machine: Machine) -> float:
        """No program does it faster on this machine, milliseconds: the larger of the times to compute and to move."""
        integers = self.integer_ops / (machine.integer_ops_per_s or machine.flops_per_s)
        return 1000 * max(self.flops / machine.flops_per_s + integers, self.bytes / machine.bytes_per_s)


def work_of(path: Path, shapes: Mapping[str, Sequence[int]]) -> Work:
    """Of a network fed inputs of these shapes.

    Raises BadInput: onnx is not installed, or a node's shape cannot be told.
    """
    try:
        import onnx
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
    except ImportError:
        raise BadInput("the floors of networks are counted by onnx: pip install 'warpfuse[cpu,bench]'") from None
    model = onnx.load_model(path, load_external_data=False)
    onnx_graph = model.graph
    for value in onnx_graph.input:
        if value.name in shapes:
            for axis, length in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
                axis.dim_value = length
    # ONNX's own inference loses the shapes behind arithmetic on shapes, which the tracing exporter writes
    inferred = SymbolicShapeInference.infer_shapes(model, auto_merge=True).graph
    known: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in onnx_graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        known[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
    from_bytes = {node.output[0] for node in onnx_graph.node if node.op_type == "DequantizeLinear"}
    done = {False: 0, True: 0}  # of floats and of integers
    for node in onnx_graph.node:
        done[from_bytes.issuperset(node.input[:2])] += _operations(node, known, path.name)
    weights = {tensor.name: tensor for tensor in onnx_graph.initializer}
    stored = sum(math.prod(tensor.dims) * _BYTES[tensor.data_type] for tensor in weights.values())
    ends = [value for value in (*inferred.input, *inferred.output) if value.name not in weights]
    moved = sum(math.prod(known[value.name]) * _BYTES[value.type.tensor_type.elem_type] for value in ends)
    return Work(done[False], stored + moved, done[True])


def _operations(node: Any, known: Mapping[str, Shape], network: str) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    shapes = [known.get(name, ()) for name in (*node.input[:2], node.output[0])]
    if not all(shapes) or any(0 in shape for shape in shapes):
        raise BadInput(f"{network}: the shape of node '{node.name or node.op_type}' cannot be told, so no floor can")
    first, second, out = shapes
    match node.op_type:
        case "Conv":  # each output value sums over the kernel, [out, in / groups, ...]
            return 2 * math.prod(out) * math.prod(second[1:])
        case "ConvTranspose":  # each input value is spread over the kernel, [in, out / groups, ...]
            return 2 * math.prod(first) * math.prod(second[1:])
        case "Gemm":
            across = first[0] if any(a.name == "transA" and a.i for a in node.attribute) else first[1]
            return 2 * math.prod(out) * across
        case _:
            return 2 * math.prod(out) * first[-1]
