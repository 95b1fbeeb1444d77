"""Converting a TFLite network of convolutions to ONNX. Pictures [1, h, w, c] become [1, c, h, w], and nothing else
changes.

Only the few operators of such networks are supported. For any other one the error has its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from .onnx_writing import OPSET, ExportError

Array = npt.NDArray[np.float32]

TRANSPOSED = "Convolution2DTransposeBias"
"""MediaPipe's operator: a transposed convolution with a bias. Options, int32: padding, stride across, stride down."""

_SAME, _VALID = 0, 1  # TFLite's Padding
_ACTIVATIONS = {0: None, 1: "Relu"}  # TFLite's ActivationFunctionType


def onnx_of(model: Any, schema: Any, output: str, every: bool = False) -> onnx.ModelProto:
    """The ONNX model of a TFLite model, with the input "rgb".

    model   a `ModelT` of `schema`, the object form of TFLite's flatbuffer
    output  name of the output
    every   make every intermediate tensor an output too, named t0, t1, ... by its number in the model

    Raises ExportError: an unsupported operator or option.
    """
    return _Graph(model, schema).converted(output, every)


class _Graph:
    def __init__(self, model: Any, schema: Any) -> None:
        self._model, self._graph = model, model.subgraphs[0]
        self._codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self._types = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16,
                       schema.TensorType.INT32: np.int32}  # fmt: skip
        self._names: dict[int, str] = {int(self._graph.inputs[0]): "rgb"}
        self._constants: dict[int, Array] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def converted(self, output: str, every: bool) -> onnx.ModelProto:
        for operator in self._graph.operators:
            self._convert(operator)
        (last,) = self._graph.outputs
        self._add("Identity", [self._names[int(last)]], output)
        shown = {output: int(last)}
        if every:
            shown |= {name: number for number, name in self._names.items() if name != "rgb"}
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self._shape(t)) for name, t in shown.items()]
        rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, self._shape(int(self._graph.inputs[0])))
        graph = helper.make_graph(self._nodes, "tflite", [rgb], values, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _convert(self, operator: Any) -> None:
        code = self._model.operatorCodes[operator.opcodeIndex]
        name = code.customCode.decode() if code.customCode else self._codes[code.builtinCode]
        convert: Callable[[Any, list[int], int], None] | None = {
            "DEQUANTIZE": self._dequantize,
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._convolution_of_each,
            TRANSPOSED: self._transposed,
            "AVERAGE_POOL_2D": self._mean,
            "MEAN": self._mean,
            "RESIZE_BILINEAR": self._resize,
            **{kind: self._plain(op) for kind, op in _PLAIN.items()},
        }.get(name)
        if convert is None:
            raise ExportError(f"TFLite operator {name} is not known here; known are those of networks of convolutions")
        inputs, (output,) = [int(i) for i in operator.inputs], (int(i) for i in operator.outputs)
        convert(operator, inputs, output)

    def _dequantize(self, operator: Any, inputs: list[int], output: int) -> None:
        self._constants[output] = self._constant(inputs[0])

    def _plain(self, op: str) -> Callable[[Any, list[int], int], None]:
        def convert(operator: Any, inputs: list[int], output: int) -> None:
            fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
            self._give(op, [self._names[i] for i in inputs], output, fused)

        return convert

    def _convolution(self, operator: Any, inputs: list[int], output: int) -> None:
        weights = self._constant(inputs[1]).transpose(0, 3, 1, 2)  # out, h, w, in
        self._convolve(operator, inputs, output, weights, group=1)

    def _convolution_of_each(self, operator: Any, inputs: list[int], output: int) -> None:
        weights = self._constant(inputs[1]).transpose(3, 0, 1, 2)  # 1, h, w, out
        if operator.builtinOptions.depthMultiplier != 1:
            raise ExportError(f"DEPTHWISE_CONV_2D: depth multiplier {operator.builtinOptions.depthMultiplier}, not 1")
        self._convolve(operator, inputs, output, weights, group=len(weights))

    def _convolve(self, operator: Any, inputs: list[int], output: int, weights: Array, group: int) -> None:
        options = operator.builtinOptions
        strides = [options.strideH, options.strideW]
        if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
            raise ExportError("a dilated convolution is not known here")
        pads = [0, 0, 0, 0]
        if options.padding == _SAME:
            sides = self._shape(inputs[0])[2:], weights.shape[2:], strides
            whole = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(*sides, strict=True)]
            pads = [n // 2 for n in whole] + [n - n // 2 for n in whole]
        fed = [self._names[inputs[0]], self._weight(inputs[1], weights), self._weight(inputs[2])]
        self._give("Conv", fed, output, options.fusedActivationFunction, strides=strides, pads=pads, group=group)

    def _transposed(self, operator: Any, inputs: list[int], output: int) -> None:
        _, across, down = np.frombuffer(bytes(operator.customOptions), np.int32).tolist()
        weights = self._constant(inputs[1]).transpose(3, 0, 1, 2)  # out, h, w, in -> in, out, h, w
        if weights.shape[2:] != (down, across):
            raise ExportError(f"{TRANSPOSED}: a kernel of {weights.shape[2:]} and strides of {(down, across)} overlap")
        fed = [self._names[inputs[0]], self._weight(inputs[1], weights), self._weight(inputs[2])]
        self._give("ConvTranspose", fed, output, 0, strides=[down, across])

    def _mean(self, operator: Any, inputs: list[int], output: int) -> None:
        if self._shape(output)[2:] != [1, 1]:
            raise ExportError("a mean of less than the whole picture is not known here")
        self._give("GlobalAveragePool", [self._names[inputs[0]]], output, 0)

    def _resize(self, operator: Any, inputs: list[int], output: int) -> None:
        options = operator.builtinOptions
        mode = "align_corners" if options.alignCorners else "half_pixel" if options.halfPixelCenters else "asymmetric"
        sides = np.array(self._shape(output), np.int64)
        self._weights.append(numpy_helper.from_array(sides, f"sides{output}"))
        fed = [self._names[inputs[0]], "", "", f"sides{output}"]
        self._give("Resize", fed, output, 0, mode="linear", coordinate_transformation_mode=mode)

    def _give(self, op: str, inputs: list[str], output: int, fused: int, **attributes: Any) -> None:
        if fused not in _ACTIVATIONS:
            raise ExportError(f"activation {fused} behind {op} is not known here")
        self._names[output], then = f"t{output}", _ACTIVATIONS[fused]
        self._add(op, inputs, f"t{output}" if then is None else f"t{output}.linear", **attributes)
        if then is not None:
            self._add(then, [f"t{output}.linear"], f"t{output}")

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))

    def _weight(self, number: int, values: Array | None = None) -> str:
        name = f"w{number}"
        values = self._constant(number) if values is None else values
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def _constant(self, number: int) -> Array:
        if number in self._constants:
            return self._constants[number]
        tensor = self._graph.tensors[number]
        data = self._model.buffers[tensor.buffer].data
        values = np.frombuffer(bytes(data), self._types[tensor.type])
        return values.reshape(tensor.shape).astype(np.float32)

    def _shape(self, number: int) -> list[int]:
        n, h, w, c = (int(side) for side in self._graph.tensors[number].shape)
        return [n, c, h, w]


_PLAIN = {"HARD_SWISH": "HardSwish", "RELU": "Relu", "LOGISTIC": "Sigmoid", "MUL": "Mul", "ADD": "Add"}
