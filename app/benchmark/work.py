"""The work of a network in one call, which gives a lower bound of its time.

It is counted from the ONNX file. Operations are the multiplications and additions of convolutions and matrix products.
Memory traffic is at least the stored weights, inputs and outputs, once each. Operations on 8-bit tensors are counted
separately, since they have another rate.
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
"""Bytes of a number by ONNX's element type: float, uint8, int8, int32, int64, bool, float16, double, bfloat16."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one call: floating-point operations, least memory traffic in bytes, and operations on 8-bit integers."""

    flops: int
    bytes: int
    integer_ops: int = 0

    def floor_ms(self, machine: Machine) -> float:
        """Least milliseconds on this machine: the larger of the times for arithmetic and for memory traffic."""
        integers = self.integer_ops / (machine.integer_ops_per_s or machine.flops_per_s)
        return 1000 * max(self.flops / machine.flops_per_s + integers, self.bytes / machine.bytes_per_s)


def work_of(path: Path, shapes: Mapping[str, Sequence[int]]) -> Work:
    """The work of a network with inputs of these shapes.

    Raises BadInput: onnx is not installed, or the shape of a node is unknown.
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
    # ONNX's own inference cannot follow arithmetic on shapes, which the tracing exporter writes.
    inferred = SymbolicShapeInference.infer_shapes(model, auto_merge=True).graph
    known: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in onnx_graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        known[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
    from_bytes = {node.output[0] for node in onnx_graph.node if node.op_type == "DequantizeLinear"}
    done = {False: 0, True: 0}  # operations on floats, on integers
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
