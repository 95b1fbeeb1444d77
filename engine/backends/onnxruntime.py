"""ONNX Runtime: the default on a CPU.

Inputs are bound where they lie and outputs are written into our own two slots: no copy either way.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import EngineError

SLOTS = 2

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(uint8)": torch.uint8,
}


def missing(device: str) -> str | None:
    """Why ONNX Runtime cannot run on this device, with the remedy, or None."""
    try:
        import onnxruntime
    except ImportError:
        extra = "cpu" if device == "cpu" else "cuda"
        return f"onnxruntime is not installed: pip install 'warpfuse[{extra}]'"
    if device == "cpu":
        return None
    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return "onnxruntime runs networks on the CPU only in this version: give --device cpu"
    return f"onnxruntime {onnxruntime.__version__} has no provider for {device}: give --device cpu"


def open(path: Path, device: str, threads: int = 0) -> "OnnxRuntimeEngine":
    """Open an ONNX file. threads: intra-operator threads, 0 for one a core."""
    return OnnxRuntimeEngine(path, device, threads)


class OnnxRuntimeEngine:
    """An ONNX Runtime session with two bound sets of outputs. See `Engine` for the contract."""

    backend = "onnxruntime"

    def __init__(self, path: Path, device: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin take the cores away from the stages beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception types are not importable on every version
            raise EngineError(f"{path.name} cannot be opened by onnxruntime: {_one_line(error)}") from error
        self.name = path.name
        self.device = device
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._bindings = [self._session.io_binding() for _ in range(SLOTS)]
        self._slots: list[dict[str, Tensor]] = []
        self._shapes: tuple[torch.Size, ...] = ()
        self._next = 0

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run once; see `Engine`."""
        fed = self._check(inputs)
        shapes = tuple(tensor.shape for tensor in fed)
        if shapes != self._shapes:
            self._allocate(fed)
            self._shapes = shapes
        slot, self._next = self._next, (self._next + 1) % SLOTS
        binding = self._bindings[slot]
        for spec, tensor in zip(self.inputs, fed, strict=True):
            _bind(binding.bind_input, spec.name, tensor)
        self._session.run_with_iobinding(binding)
        return self._slots[slot]

    def close(self) -> None:
        """Drop the session and its slots."""
        self._bindings.clear()
        self._slots.clear()
        del self._session

    def _check(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        known = {spec.name for spec in self.inputs}
        if inputs.keys() != known:
            fed_names = ", ".join(sorted(inputs))
            raise EngineError(f"{self.name}: takes {', '.join(sorted(known))}, the graph feeds {fed_names}")
        fed = []
        for spec in self.inputs:
            tensor = inputs[spec.name]
            spec.check(self.name, tensor)
            if tensor.device.type != "cpu":
                raise EngineError(f"{self.name}: '{spec.name}' is on {tensor.device}, the engine on {self.device}")
            fed.append(tensor.contiguous())
        return fed

    def _allocate(self, fed: list[Tensor]) -> None:
        """Learn the output shapes from one plain run, then bind both slots; done again only when a shape changes."""
        feed = {spec.name: tensor.numpy() for spec, tensor in zip(self.inputs, fed, strict=True)}
        shapes = [array.shape for array in self._session.run(None, feed)]
        self._slots = []
        for binding in self._bindings:
            binding.clear_binding_outputs()
            slot = {}
            for spec, shape in zip(self.outputs, shapes, strict=True):
                slot[spec.name] = torch.empty(shape, dtype=getattr(torch, spec.dtype))
                _bind(binding.bind_output, spec.name, slot[spec.name])
            self._slots.append(slot)


def _spec(node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise EngineError(f"'{node.name}' is {node.type}; known are {', '.join(_DTYPES)}")
    shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
    return TensorSpec(node.name, str(dtype).removeprefix("torch."), shape)


def _bind(bind: Any, name: str, tensor: Tensor) -> None:
    # numpy's dtype of the same memory; onnxruntime wants the type, not a tensor
    bind(name, "cpu", 0, tensor.numpy().dtype.type, list(tensor.shape), tensor.data_ptr())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
