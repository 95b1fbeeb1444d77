"""Making a bundle of any ONNX network from a picture to a map. The network is checked, its input and output renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from warpfuse.engine.bundle import MapBundle
from warpfuse.engine.bundle_writing import check_place, write_map_bundle
from warpfuse.engine.errors import one_line

from .onnx_writing import ExportError

_RIM = 1e-3  # values of a map may be this far outside of [0, 1], by rounding
_WANTED = "Expected one input [1, 3, height, width] and one output [1, 1 or 3, height, width], float32"


def export_map(
    folder: Path, file: Path, *, multiple: int = 8, long_side: int = 512, licence: str = "unknown"
) -> MapBundle:
    """Write an ONNX network from pictures to maps as a bundle of kind "map". Errors leave nothing behind.

    multiple   for a network that takes any size: width and height are multiples of this
    long_side  for such a network: the longest side at which it is run, px

    The network must take a picture in [0, 1] and give a map in [0, 1] of the same size. It is tried on one picture, or
    on two of different sizes if it takes any size.
    Raises ExportError: no ONNX network, other inputs or outputs, other sizes, values out of range.
    """
    check_place(folder)
    model = _read(file)
    given, gives = _ends(file, model)
    height, width = _picture_input(file, given)
    named = _with_names(file, model, given.name, gives.name)
    if height and width:
        sides: dict[str, Any] = {"size": (width, height)}
        sizes = [(height, width)]
    else:
        sides = {"sizes": {"multiple": multiple, "minimum": multiple, "default_long_side": long_side}}
        sizes = [(6 * multiple, 8 * multiple), (8 * multiple, 10 * multiple)]
    channels = _tried(file, named, sizes)
    return write_map_bundle(
        folder,
        {"map.onnx": named},
        name=folder.name,
        channels=channels,
        networks={"map": "map.onnx"},
        licence=licence,
        source=file.name,
        **sides,
    )


def _read(file: Path) -> onnx.ModelProto:
    if not file.is_file():
        raise ExportError(f"{file}: no such file. Give an ONNX network")
    try:
        model = onnx.load_model(file)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx and protobuf raise types of their own, which moved between versions
        raise ExportError(f"{file} is no valid ONNX network: {one_line(error, 200)}") from error
    return model


def _ends(file: Path, model: onnx.ModelProto) -> tuple[Any, Any]:
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        told = ", ".join(value.name for value in inputs), ", ".join(value.name for value in outputs)
        raise ExportError(f"{file}: its inputs are {told[0]}, its outputs {told[1]}. {_WANTED}")
    return inputs[0], outputs[0]


def _picture_input(file: Path, given: Any) -> tuple[int, int]:
    """The fixed (height, width) of the input; 0: any. Raises ExportError unless the input is a picture."""
    tensor = given.type.tensor_type
    shape = [side.dim_value for side in tensor.shape.dim]
    fits = len(shape) == 4 and shape[0] in (0, 1) and shape[1] in (0, 3) and bool(shape[2]) == bool(shape[3])
    if tensor.elem_type != TensorProto.FLOAT or not fits:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        told = ", ".join(str(side or "?") for side in shape)
        raise ExportError(f"{file}: its input {given.name!r} is {kind} [{told}]. {_WANTED}")
    return shape[2], shape[3]


def _with_names(file: Path, model: onnx.ModelProto, given: str, gives: str) -> bytes:
    """The network with input "rgb", output "map" and a batch of one."""
    named = onnx.compose.add_prefix(model, "network.")
    graph = named.graph
    channels = [side.dim_value or side.dim_param for side in model.graph.output[0].type.tensor_type.shape.dim][1:2]
    sides = [side.dim_value or side.dim_param for side in model.graph.input[0].type.tensor_type.shape.dim][2:]
    rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, *sides])
    found = helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, *(channels or ["channels"]), *sides])
    nodes = [
        helper.make_node("Identity", ["rgb"], [f"network.{given}"], name="rgb"),
        *graph.node,
        helper.make_node("Identity", [f"network.{gives}"], ["map"], name="map"),
    ]
    weights = {weight.name for weight in graph.initializer}
    kept = [value for value in graph.input if value.name in weights]
    for field, values in ((graph.node, nodes), (graph.input, [rgb, *kept]), (graph.output, [found])):
        del field[:]
        field.extend(values)
    try:
        return bytes(named.SerializeToString())
    except ValueError:  # of protobuf
        raise ExportError(f"{file}: more than 2 GB of weights, which no map of a live picture can afford") from None


def _tried(file: Path, network: bytes, sizes: list[tuple[int, int]]) -> int:
    """Number of channels of the map. Raises ExportError if the network cannot be run or its output is no map."""
    channels = 0
    for height, width in sizes:
        picture = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        try:
            session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
            (found,) = session.run(["map"], {"rgb": picture})
        except Exception as error:  # onnxruntime raises types of its own
            raise ExportError(f"{file} cannot be run on {width}x{height}: {one_line(error, 200)}") from error
        shape = list(found.shape)
        if shape not in ([1, 1, height, width], [1, 3, height, width]):
            raise ExportError(f"{file}: of a picture of {width}x{height} it gives {shape}. {_WANTED}, of one size")
        if found.dtype != np.float32 or not np.isfinite(found).all():
            raise ExportError(f"{file}: it gives {found.dtype} with values that are not finite. {_WANTED}")
        if found.min() < -_RIM or found.max() > 1 + _RIM:
            raise ExportError(
                f"{file}: it gives values from {found.min():.3g} to {found.max():.3g}, expected 0 to 1."
                " Export it with its last layer, a sigmoid or a division, inside"
            )
        channels = shape[1]
    return channels
