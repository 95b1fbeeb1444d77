"""A flow bundle for one size whose network always returns no motion."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from warpfuse.engine.bundle_writing import write_flow_bundle


def write(folder: Path, width: int, height: int) -> str:
    """Write the bundle and return its folder as a string, as `--flow` takes it."""
    shape = {"cur": [1, 3, height, width], "prev": [1, 3, height, width]}
    nodes = [
        helper.make_node("Slice", ["cur", "from", "to", "axis"], ["two"]),
        helper.make_node("Mul", ["two", "zero"], ["flow"]),
        helper.make_node("Slice", ["prev", "from", "to", "axis"], ["other"]),
        helper.make_node("Mul", ["other", "zero"], ["flow_back"]),
    ]
    constants = [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])]
    constants += [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("from", 0), ("to", 2), ("axis", 1))
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shape.items()]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, height, width]) for name in ("flow", "flow_back")
    ]
    graph = helper.make_graph(nodes, "still", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    write_flow_bundle(
        folder,
        {"flow.onnx": model.SerializeToString()},
        name="still",
        size=(width, height),
        iterations=1,
        networks={"flow": "flow.onnx"},
        licence="Apache-2.0",
        source="made by a test",
    )
    return str(folder)
