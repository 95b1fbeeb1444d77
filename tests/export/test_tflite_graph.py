"""What is made of a TFLite network computes what TFLite's own runtime does, layer for layer."""

import numpy as np
import onnxruntime
import pytest
import torch

pytest.importorskip("ai_edge_litert", reason="pip install ai-edge-litert: TFLite's own runtime is the reference")

from ai_edge_litert import schema_py_generated as schema

from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.person import compare_layers, export_person
from warpfuse.export.tflite_graph import TRANSPOSED, onnx_of

OPS = schema.BuiltinOperator


class Network:
    """A TFLite network, put together operator by operator; its weights are in half precision, as in those files."""

    def __init__(self, height=18, width=26):
        self.random = np.random.default_rng(1)
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs = [self.tensor([1, height, width, 3])]

    def tensor(self, shape, data=None, kind=schema.TensorType.FLOAT32):
        tensor, buffer = schema.TensorT(), 0
        if data is not None:
            buffer = len(self.model.buffers)
            self.model.buffers.append(schema.BufferT())
            self.model.buffers[-1].data = np.frombuffer(data.tobytes(), np.uint8)
        tensor.shape, tensor.type, tensor.buffer, tensor.name = list(shape), kind, buffer, b"t"
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def call(self, code, inputs, shape, options=None, kind=0, custom=None):
        made = schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
        made.customCode = custom and custom[0]
        self.model.operatorCodes.append(made)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), [self.tensor(shape)]
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        operator.customOptions = custom and np.frombuffer(np.array(custom[1], np.int32).tobytes(), np.uint8)
        self.graph.operators.append(operator)
        self.graph.outputs = [operator.outputs[0]]
        return operator.outputs[0]

    def weights(self, *shape):
        halves = self.tensor(shape, self.random.normal(0, 0.4, shape).astype(np.float16), schema.TensorType.FLOAT16)
        return self.call(OPS.DEQUANTIZE, [halves], shape)

    def shape(self, tensor):
        return list(self.graph.tensors[tensor].shape)

    def convolution(self, x, out, side=3, stride=1, padding=schema.Padding.SAME, each=False):
        _, h, w, c = self.shape(x)
        options = (schema.DepthwiseConv2DOptionsT if each else schema.Conv2DOptionsT)()
        options.padding, options.strideH, options.strideW = padding, stride, stride
        options.dilationHFactor = options.dilationWFactor = 1
        if each:
            options.depthMultiplier = 1
        code, kind = (
            (OPS.DEPTHWISE_CONV_2D, schema.BuiltinOptions.DepthwiseConv2DOptions)
            if each
            else (OPS.CONV_2D, schema.BuiltinOptions.Conv2DOptions)
        )
        w_ = self.weights(1, side, side, c) if each else self.weights(out, side, side, c)
        lost = 0 if padding == schema.Padding.SAME else side - 1
        made = [1, -(-(h - lost) // stride), -(-(w - lost) // stride), c if each else out]
        return self.call(code, [x, w_, self.weights(made[3])], made, options, kind)

    def plain(self, code, *inputs):
        options, kind = None, 0
        if code in (OPS.ADD, OPS.MUL):
            options = (schema.AddOptionsT if code == OPS.ADD else schema.MulOptionsT)()
            kind = schema.BuiltinOptions.AddOptions if code == OPS.ADD else schema.BuiltinOptions.MulOptions
        return self.call(code, inputs, self.shape(inputs[0]), options, kind)

    def mean(self, x):
        options = schema.ReducerOptionsT()
        options.keepDims = True
        axes = self.tensor([2], np.array([1, 2], np.int32), schema.TensorType.INT32)
        shape = [1, 1, 1, self.shape(x)[3]]
        return self.call(OPS.MEAN, [x, axes], shape, options, schema.BuiltinOptions.ReducerOptions)

    def resized(self, x, h, w, half_pixels, corners=False):
        options = schema.ResizeBilinearOptionsT()
        options.halfPixelCenters, options.alignCorners = half_pixels, corners
        size = self.tensor([2], np.array([h, w], np.int32), schema.TensorType.INT32)
        shape = [1, h, w, self.shape(x)[3]]
        return self.call(OPS.RESIZE_BILINEAR, [x, size], shape, options, schema.BuiltinOptions.ResizeBilinearOptions)

    def transposed(self, x):
        _, h, w, c = self.shape(x)
        inputs = [x, self.weights(1, 2, 2, c), self.weights(1)]
        return self.call(OPS.CUSTOM, inputs, [1, 2 * h, 2 * w, 1], custom=(TRANSPOSED.encode(), [1, 2, 2]))


def segmentation(half_pixels=True):
    """A small one of everything there is in MediaPipe's."""
    net = Network()
    x = net.plain(OPS.HARD_SWISH, net.convolution(net.graph.inputs[0], 8, stride=2))
    skip = net.plain(OPS.RELU, net.convolution(x, 6, side=1, padding=schema.Padding.VALID))
    y = net.plain(OPS.RELU, net.convolution(skip, 6, side=5, stride=2, each=True))
    gate = net.plain(OPS.LOGISTIC, net.convolution(net.mean(y), 6, side=1))
    y = net.plain(OPS.MUL, y, gate)
    y = net.plain(OPS.ADD, net.convolution(y, 6), y)
    y = net.resized(y, *net.shape(skip)[1:3], half_pixels)
    y = net.plain(OPS.ADD, skip, y)
    net.plain(OPS.LOGISTIC, net.transposed(y))
    return net


def packed(net):
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(net.model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def picture(net):
    return np.random.default_rng(2).random(net.shape(net.graph.inputs[0]), np.float32)


def every_layer(net):
    return onnx_of(net.model, schema, "map", every=True).SerializeToString()


@pytest.mark.parametrize("half_pixels", [True, False])
def test_every_layer_is_that_of_tflite(half_pixels):
    net = segmentation(half_pixels)
    layers, worst = compare_layers(net.model, schema, every_layer(net), picture(net))
    assert layers == 16 and worst < 1e-5
    with pytest.raises(ExportError, match="is off by"):  # the control: a network that was converted otherwise
        compare_layers(net.model, schema, every_layer(segmentation(not half_pixels)), picture(net))


def test_the_transposed_convolution_is_that_of_torch():
    """TFLite's own runtime has none: the reference is torch's, with the kernel the other way round."""
    net = Network(height=6, width=8)
    net.transposed(net.graph.inputs[0])
    rgb = picture(net)
    session = onnxruntime.InferenceSession(onnx_of(net.model, schema, "map").SerializeToString())
    (found,) = session.run(None, {"rgb": rgb.transpose(0, 3, 1, 2)})
    stored = [np.frombuffer(buffer.data.tobytes(), np.float16).astype(np.float32) for buffer in net.model.buffers[1:]]
    kernel = torch.from_numpy(stored[0].reshape(1, 2, 2, 3)).permute(3, 0, 1, 2)
    x = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.conv_transpose2d(x, kernel, torch.from_numpy(stored[1]), stride=2)
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-5)


def test_a_bundle_is_written_of_a_file(tmp_path):
    net = segmentation()
    (tmp_path / "net.tflite").write_bytes(packed(net))
    bundle, layers, _ = export_person(tmp_path / "person", tmp_path / "net.tflite")
    assert (bundle.about.size, bundle.about.channels, layers) == ((26, 18), 1, 16)


def test_what_is_not_known_is_refused_by_name(tmp_path):
    net = Network()
    net.plain(OPS.ABS, net.graph.inputs[0])
    with pytest.raises(ExportError, match="operator ABS"):
        onnx_of(net.model, schema, "map")
    (tmp_path / "text.tflite").write_text("no network at all, and nothing that looks like one")
    for file, told in (("text.tflite", "no TFLite network"), ("missing.tflite", "No such file")):
        with pytest.raises(ExportError, match=told):
            export_person(tmp_path / "out", tmp_path / file)
    assert not (tmp_path / "out").exists()
