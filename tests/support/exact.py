"""A bundle with exact arithmetic, so that the result of a whole graph can be predicted bit for bit.

The latent is the picture itself, rearranged: space to depth, 8 x 8 x 3 = 192 channels. The UNet "predicts"
`style[0] * source + style[1] * (1 - source) + style[2] * x`: the styles are the picture, its negative, and the noisy
latent it was given.

With lines, their cover is half the mean of the source's channels, in the ink of the style, and the negative is printed
in inks.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from warpfuse.engine.bundle_writing import write_bundle

CHANNELS = 192


PRINTING = {
    "same": {"ink": [1.0, 0.0, 0.0], "lines": 0.5},
    "negative": {"lut": "negative.lut"},
    "noisy": {"lines": 0.0},
}


def lut() -> bytes:
    """A table that halves the red, squares the green and swaps in some of the red for the blue."""
    axis = np.linspace(0, 1, 33)
    red, green, blue = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.rint(255 * np.stack([0.5 * red, green**2, 0.7 * blue + 0.3 * red], -1)).astype(np.uint8).tobytes()


def write(folder: Path, lines: bool = False, past: bool = False) -> str:
    """Write the bundle and return its folder as a string, as `--bundle` takes it.

    past  add an encoder for the fed-back picture, which halves it
    """
    picture, latent = ["n", 3, "h", "w"], ["n", CHANNELS, "h", "w"]
    files = {
        "encoder.onnx": _model(
            {"rgb": picture}, ("latent", latent), [helper.make_node("SpaceToDepth", ["rgb"], ["latent"], blocksize=8)]
        ),
        "decoder.onnx": _model(
            {"latent": latent}, ("rgb", picture), [helper.make_node("DepthToSpace", ["latent"], ["rgb"], blocksize=8)]
        ),
        "unet.onnx": _unet(latent),
    }
    networks = ["encoder", "unet", "decoder"]
    if lines:
        files["lines.onnx"] = _lines(picture, latent)
        files["negative.lut"] = lut()
        networks.append("lines")
    if past:
        nodes = [
            helper.make_node("SpaceToDepth", ["rgb"], ["folded"], blocksize=8),
            helper.make_node("Mul", ["folded", "half"], ["latent"]),
        ]
        half = [helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])]
        files["encoder_past.onnx"] = _model({"rgb": picture}, ("latent", latent), nodes, half)
        networks.append("encoder_past")
    names = ("same", "negative", "noisy")
    printing = PRINTING if lines else {name: {} for name in names}
    write_bundle(
        folder,
        files,
        name="exact",
        kind="latent-diffusion",
        prediction="sample",
        levels={"schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "train_timesteps": 1000},
        latent={"channels": CHANNELS, "downscale": 8, "scale": 1.0},
        takes_source=True,
        strength_scales_style=False,
        sizes={"multiple": 8, "minimum": 16, "default_long_side": 128},
        steps={"top": 600.0, "floor": 100.0},
        default_style="negative",
        styles={name: {"vector": [float(i == k) for i in range(3)], **printing[name]} for k, name in enumerate(names)},
        networks={kind: f"{kind}.onnx" for kind in networks},
        licence="Apache-2.0",
        source="made by a test",
    )
    return str(folder)


def _unet(latent: list) -> bytes:
    nodes, terms = [helper.make_node("Sub", ["one", "source"], ["rest"])], []
    for k, what in enumerate(("source", "rest", "x")):
        nodes.append(helper.make_node("Gather", ["style", f"index{k}"], [f"share{k}"], axis=1))
        nodes.append(helper.make_node("Reshape", [f"share{k}", "scalar"], [f"gain{k}"]))
        nodes.append(helper.make_node("Mul", [what, f"gain{k}"], [f"term{k}"]))
        terms.append(f"term{k}")
    nodes.append(helper.make_node("Sum", [*terms], ["sum"]))
    nodes.append(helper.make_node("ReduceSum", ["level"], ["unused"], keepdims=0))  # every input is part of the graph
    nodes.append(helper.make_node("Mul", ["unused", "zero"], ["nothing"]))
    nodes.append(helper.make_node("Add", ["sum", "nothing"], ["output"]))
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("scalar", TensorProto.INT64, [4], [-1, 1, 1, 1]),
        *[helper.make_tensor(f"index{k}", TensorProto.INT64, [1], [k]) for k in range(3)],
    ]
    inputs = {"x": latent, "source": latent, "level": ["n", 2], "style": ["n", 3]}
    return _model(inputs, ("output", latent), nodes, constants)


def _lines(picture: list, latent: list) -> bytes:
    nodes = [
        helper.make_node("ReduceMean", ["rgb"], ["mean"], axes=[1]),
        helper.make_node("Mul", ["mean", "half"], ["halved"]),
        helper.make_node("ReduceSum", ["style"], ["share"], keepdims=0),
        helper.make_node("Mul", ["halved", "share"], ["drawn"]),
        helper.make_node("ReduceSum", ["latent"], ["unused"], keepdims=0),
        helper.make_node("Mul", ["unused", "zero"], ["nothing"]),
        helper.make_node("Add", ["drawn", "nothing"], ["cover"]),
    ]
    constants = [
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
    ]
    inputs = {"rgb": picture, "latent": latent, "style": ["n", 3]}
    return _model(inputs, ("cover", ["n", 1, "h", "w"]), nodes, constants)


def _model(inputs: dict, output: tuple, nodes: list, constants: list | None = None) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    result = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])
    graph = helper.make_graph(nodes, "exact", values, [result], constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
