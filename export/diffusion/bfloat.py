"""Graphs in bfloat16: raising the operator set, and emulation for checking on a CPU.

ONNX has convolutions in bfloat16 from operator set 22 on. No version of ONNX Runtime computes them on a CPU. So the
check runs a graph in which all values are in single precision, and those of type bfloat16 are rounded to it when they
are computed. Products are summed in single precision and rounded once, as on a card. Each rounding is a pair of casts,
which is not optimised away.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .half import BFLOAT, SINGLE

OPSET = 22
IR_VERSION = 10  # the oldest with this operator set
_AXES_AS_INPUT = frozenset(("ReduceMean", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceProd"))  # from 18 on
_OTHER_TYPE = frozenset(("Shape", "Size", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "IsNaN"))


def raise_opset(model: onnx.ModelProto, to: int = OPSET) -> None:
    """Convert a model from operator set 17 to a newer one, up to 22, in place. Of the operators in use, only reductions
    changed."""
    for number, node in enumerate(model.graph.node):
        axes = next((a for a in node.attribute if a.name == "axes"), None) if node.op_type in _AXES_AS_INPUT else None
        if axes is not None:
            name = f"axes.{number}"
            model.graph.initializer.append(numpy_helper.from_array(np.array(axes.ints, np.int64), name))
            node.input.append(name)
            node.attribute.remove(axes)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", to))
    model.ir_version = IR_VERSION


def emulate(model: onnx.ModelProto) -> None:
    """Replace bfloat16 by rounded single precision, in place. Inputs and outputs of the graph keep their names; they
    must not be bfloat16."""
    onnx_graph = model.graph
    narrow = set()
    for tensor in onnx_graph.initializer:
        if tensor.data_type == BFLOAT:
            narrow.add(tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    nodes = []
    for node in onnx_graph.node:
        fresh = onnx.NodeProto()
        fresh.CopyFrom(node)
        nodes.append(fresh)
        into = fresh.attribute[0].i if node.op_type == "Cast" else None
        if into == BFLOAT:
            fresh.attribute[0].i = SINGLE
        if into == BFLOAT or (into is None and node.op_type not in _OTHER_TYPE and not narrow.isdisjoint(node.input)):
            narrow.update(node.output)
            for place, name in enumerate(node.output):
                fresh.output[place] = f"{name}.wide"
                nodes += [_cast(f"{name}.wide", f"{name}.rounded", BFLOAT), _cast(f"{name}.rounded", name, SINGLE)]
    del onnx_graph.node[:], onnx_graph.value_info[:]
    onnx_graph.node.extend(nodes)


def _cast(name: str, into: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [into], name=f"{into}.rounding", to=kind)
