"""Tiny networks: y = scale * x as an ONNX file and as an exported program, and convolutions."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 4, 6)
"""A size the networks below are opened for by backends that want to know it."""


def affine(path, scale=2.0, dtype=TensorProto.FLOAT, shape=("n", 3, "h", "w")):
    """y = scale * x, with `scale` kept as float16 behind a cast, as the shipped bundle keeps its weights."""
    x = helper.make_tensor_value_info("x", dtype, shape)
    y = helper.make_tensor_value_info("y", dtype, shape)
    half = helper.make_tensor("half", TensorProto.FLOAT16, [], [scale])
    nodes = [helper.make_node("Cast", ["half"], ["scale"], to=dtype), helper.make_node("Mul", ["x", "scale"], ["y"])]
    graph = helper.make_graph(nodes, "affine", [x], [y], [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


class Affine(torch.nn.Module):
    """The program of `affine_program`."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x):
        return {"y": self.scale * x}


def affine_program(path, scale=2.0, dynamic=True):
    """y = scale * x as a `.pt2`."""
    axes = {0: torch.export.Dim("n", max=64), 2: torch.export.Dim("h", max=4096), 3: torch.export.Dim("w", max=4096)}
    example = torch.ones(2, 3, 4, 6) if dynamic else torch.ones(SHAPE)
    program = torch.export.export(Affine(scale), (example,), dynamic_shapes={"x": axes} if dynamic else None)
    torch.export.save(program, path)
    return path


def convolutions(path, size=32):
    """Two convolutions with a nonlinearity between, float16, one size: [1, 3, size, size] -> [1, 8, size, size]."""
    rng = np.random.default_rng(1)
    kernels = {
        "k1": rng.normal(0, 0.1, (16, 3, 3, 3)).astype(np.float16),
        "k2": rng.normal(0, 0.1, (8, 16, 3, 3)).astype(np.float16),
    }
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, (1, 3, size, size))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, (1, 8, size, size))
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "k2"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = [numpy_helper.from_array(kernel, name) for name, kernel in kernels.items()]
    graph = helper.make_graph(nodes, "convolutions", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
