"""ONNX Runtime and TensorRT on the simulated card: the networks are computed by ONNX Runtime on the CPU, as kernels of
the stream that they are given."""

import ctypes
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime

from support.card.cuda import Stream
from support.card.order import host

_CUDA = "CUDAExecutionProvider"


def onnxruntime_on(card):
    """A stand-in for the module onnxruntime, as its build for CUDA."""
    module = ModuleType("onnxruntime")
    module.__dict__.update({name: value for name, value in vars(onnxruntime).items() if not name.startswith("__")})
    module.__version__, module.__spec__ = onnxruntime.__version__, onnxruntime.__spec__
    module.get_available_providers = lambda: [_CUDA, "CPUExecutionProvider"]

    def session(path, options=None, providers=()):
        real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        chosen = [one for one in providers if isinstance(one, tuple)]
        return _Session(card, real, chosen[0][1]) if chosen else real

    module.InferenceSession = session
    return module


class _Session:
    """A session on the stream that its owner gave it."""

    def __init__(self, card, real, provider):
        self._card, self._real = card, real
        self._stream = Stream(card, int(provider["user_compute_stream"]))
        card.providers.append(provider)

    def __del__(self):
        if not self._card.order.knows(host(), self._stream.key):
            self._card.order.fault("destroys a session that is at work")

    def get_inputs(self):
        return self._real.get_inputs()

    def get_outputs(self):
        return self._real.get_outputs()

    def get_providers(self):
        return [_CUDA, "CPUExecutionProvider"]

    def io_binding(self):
        return _Binding()

    def run(self, names, feed):
        """Run over host memory. ONNX Runtime waits for its own copies."""
        return self._real.run(names, feed)

    def run_with_iobinding(self, binding, options=None):
        card = self._card
        inputs, outputs = (
            {name: (address, shape, kind) for name, (address, shape, kind) in bound.items()}
            for bound in (binding.inputs, binding.outputs)
        )

        def compute():
            feed = {name: array_at(*place).copy() for name, place in inputs.items()}
            for (_, place), got in zip(outputs.items(), self._real.run(list(outputs), feed), strict=True):
                array_at(*place)[...] = got

        spans = [[card.arena.span(a, _nbytes(s, k)) for a, s, k in bound.values()] for bound in (inputs, outputs)]
        card.kernel("onnxruntime", *spans, compute, stream=self._stream)


class _Binding:
    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_input(self, name, device, index, kind, shape, address):
        assert device == "cuda", f"'{name}' is bound on {device}"
        self.inputs[name] = address, tuple(shape), np.dtype(kind)

    def bind_output(self, name, device, index, kind, shape, address):
        assert device == "cuda", f"'{name}' is bound on {device}"
        self.outputs[name] = address, tuple(shape), np.dtype(kind)


def array_at(address, shape, kind):
    """A numpy array over memory at an address."""
    buffer = (ctypes.c_uint8 * _nbytes(shape, kind)).from_address(address)
    return np.frombuffer(buffer, kind).reshape(shape)


def _nbytes(shape, kind):
    return int(np.prod(shape)) * np.dtype(kind).itemsize


class _Weights:
    """Weights in a plan of the simulated TensorRT: the ONNX network itself."""

    MAGIC = b"simulated plan\n"


def tensorrt_on(card, ahead=False):
    """A stand-in for `tensorrt`, as far as the package uses it. ahead: for `tensorrt_rtx_bindings`."""
    module = ModuleType("tensorrt")
    module.__version__, module.__spec__ = "11.4.0.106", ModuleSpec("tensorrt", None)
    module.ILogger = type("ILogger", (), {"__init__": lambda self: None, "INTERNAL_ERROR": 0, "ERROR": 1})
    module.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    module.TensorLocation = SimpleNamespace(DEVICE="device")
    module.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: _Engine(card, module, data))
    module.Builder = lambda logger: _Builder()
    module.OnnxParser = lambda network, logger: _Parser(network)
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
    module.BuilderFlag = SimpleNamespace(TF32="TF32", REQUIRE_USER_ALLOCATION="user allocation")
    if ahead:
        kinds = {"SM89": "SM89", "SM120": "SM120"}
        module.ComputeCapability = SimpleNamespace(__members__=kinds, **kinds)
        module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
        module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="the user's")
    return module


class _Builder:
    def create_network(self, flags):
        return SimpleNamespace(num_layers=1, num_outputs=1, num_inputs=0, data=b"")

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        sizes = {}
        return SimpleNamespace(sizes=sizes, set_shape=lambda name, *shapes: sizes.__setitem__(name, shapes[1]))

    def build_serialized_network(self, network, config):
        head = (config.sizes, config.set) if config.set else config.sizes
        return _Weights.MAGIC + repr(head).encode() + b"\n" + network.data


class _Config:
    def __init__(self):
        self.sizes = {}
        self.avg_timing_iterations = 1
        self.cleared, self.set = [], []

    def clear_flag(self, flag):
        self.cleared.append(flag)

    def set_flag(self, flag):
        self.set.append(flag)

    def set_compute_capability(self, kind, number):
        self.built_for = kind

    def add_optimization_profile(self, profile):
        self.sizes = profile.sizes

    def create_timing_cache(self, data):
        return data

    def set_timing_cache(self, cache, ignore):
        pass

    def get_timing_cache(self):
        return SimpleNamespace(serialize=lambda: b"timings")


class _Parser:
    num_errors = 0

    def __init__(self, network):
        self._network = network

    def parse_from_file(self, path):
        self._network.data = Path(path).read_bytes()
        session = onnxruntime.InferenceSession(self._network.data, providers=["CPUExecutionProvider"])
        inputs = [
            SimpleNamespace(name=one.name, shape=[n if isinstance(n, int) else -1 for n in one.shape])
            for one in session.get_inputs()
        ]
        self._network.num_inputs = len(inputs)
        self._network.get_input = inputs.__getitem__
        return True


class _Engine:
    device_memory_size_v2 = 0

    def __init__(self, card, module, data):
        import ast

        _, sizes, network = data.split(b"\n", 2)
        self.card, self._module = card, module
        head = ast.literal_eval(sizes.decode())
        self.sizes, self.users_memory = (head[0], True) if isinstance(head, tuple) else (head, False)
        if self.users_memory:
            self.device_memory_size_v2 = 64
        self.session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        self.outputs = {one.name: one for one in self.session.get_outputs()}
        self._names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self._names)
        feed = {name: np.zeros(self.sizes.get(name, one.shape), kind_of(one)) for name, one in self.inputs.items()}
        self.shapes = {name: tuple(x.shape) for name, x in feed.items()}
        self.shapes |= {
            name: tuple(x.shape) for name, x in zip(self.outputs, self.session.run(None, feed), strict=True)
        }

    def get_tensor_name(self, i):
        return self._names[i]

    def get_tensor_mode(self, name):
        return self._module.TensorIOMode.INPUT if name in self.inputs else self._module.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        kind = kind_of(self.inputs.get(name) or self.outputs[name])
        return SimpleNamespace(
            name={"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "uint8": "UINT8"}[kind.name]
        )

    def get_tensor_location(self, name):
        return self._module.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name, profile):
        return (self.shapes[name],) * 3

    def create_execution_context(self, config=None):
        return _Context(self, config)

    def create_runtime_config(self):
        return _RuntimeConfig()


class _RuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = allocation = "lazy"

    def create_runtime_cache(self):
        return SimpleNamespace(serialize=lambda: b"kernels", deserialize=lambda data: None)

    def set_runtime_cache(self, cache):
        pass

    def set_execution_context_allocation_strategy(self, strategy):
        self.allocation = strategy


def kind_of(node):
    return np.dtype({"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64",
                     "tensor(uint8)": "uint8"}[node.type])  # fmt: skip


class _Context:
    """config: of TensorRT-RTX. A stream captures it only with memory of the user and kernels that are there before."""

    def __init__(self, engine, config=None):
        self._engine, self._config, self._memory = engine, config, None
        self._at = {}
        self._streams = set()

    def __del__(self):
        card = self._engine.card
        if not all(card.order.knows(host(), stream) for stream in self._streams):
            card.order.fault("destroys an execution context that is at work")

    def set_input_shape(self, name, shape):
        assert tuple(shape) == self._engine.shapes[name]

    def get_tensor_shape(self, name):
        return self._engine.shapes[name]

    def set_tensor_address(self, name, address):
        self._at[name] = address

    def set_device_memory(self, address, nbytes):
        assert nbytes >= self._engine.device_memory_size_v2
        self._memory = address

    def is_stream_capturable(self, stream):
        config = self._config
        ready = config.dynamic_shapes_kernel_specialization_strategy == "eager" and config.allocation == "the user's"
        return ready and self._memory is not None and self._engine.users_memory and self._engine.card.rtx_captures

    def execute_async_v3(self, stream):
        engine, at = self._engine, dict(self._at)
        if self._config is not None and ("stream", stream) in engine.card.captures:
            assert self.is_stream_capturable(stream), "captured, though it said that it cannot be"

        def place(node):
            return at[node.name], engine.shapes[node.name], kind_of(node)

        def compute():
            self._streams.add(engine.card.current().key)
            feed = {name: array_at(*place(node)).copy() for name, node in engine.inputs.items()}
            for node, got in zip(engine.outputs.values(), engine.session.run(None, feed), strict=True):
                array_at(*place(node))[...] = got

        spans = [
            [engine.card.arena.span(a, _nbytes(s, k)) for a, s, k in map(place, nodes.values())]
            for nodes in (engine.inputs, engine.outputs)
        ]
        engine.card.kernel("tensorrt", *spans, compute, stream=Stream(engine.card, stream))
        return True
