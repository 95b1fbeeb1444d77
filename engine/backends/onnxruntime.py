"""ONNX Runtime: the default on a CPU, and on a card unless a faster backend is asked for.

The session reads inputs in place and writes outputs directly into one of two slots, without copies.
"""

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BackendMissing, EngineError, one_line
from warpfuse.engine.feed import Shapes, check_feed, narrow
from warpfuse.engine.precision import cpu_flags, gains_by
from warpfuse.engine.replay import SLOTS

KEPT = 16
"""Number of input shapes whose slots are kept. The rows of a call vary when several streams share the network."""

_CUDA = "CUDAExecutionProvider"
_SHAPE = attrgetter("shape")
_Slot = tuple[Any, dict[str, Tensor]]
_NO_MEMORY = re.compile(r"out of memory|failed to allocate|BFCArena", re.IGNORECASE)
_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(uint8)": torch.uint8,
}


def missing(device: str) -> str | None:
    """Why ONNX Runtime cannot run on this device, with the remedy; None if it can."""
    try:
        import onnxruntime
    except ImportError:
        extra = "cpu" if device == "cpu" else "cuda"
        return f"onnxruntime is not installed: pip install 'warpfuse[{extra}]'"
    if device == "cpu":
        return None
    if not device.startswith("cuda") or _CUDA not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} has no provider for {device}: give --device cpu"
    index, count = torch.device(device).index or 0, card.count()
    if index >= count:
        return f"onnxruntime has CUDA, but torch sees {count} CUDA devices, not {device}: check nvidia-smi"
    return None


def open(path: Path, device: str, threads: int = 0, shapes: Shapes | None = None) -> "OnnxRuntimeEngine":
    """Open an ONNX file.

    threads  intra-operator threads on a CPU, 0 for one per core
    shapes   input name -> shape: open for this one size
    """
    return OnnxRuntimeEngine(path, device, threads, shapes)


class OnnxRuntimeEngine:
    """An ONNX Runtime session with two bound sets of outputs. See `Engine` for the contract.

    On a card the session has a stream of its own. It waits for the caller's current stream before a run, and that
    stream waits for it after the run, both on the device. So the engine may be called on any stream.
    """

    backend = "onnxruntime"

    def __init__(self, path: Path, device: str, threads: int, shapes: Shapes | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin take the cores away from the stages beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if gains_by(cpu_flags()) is None:
            # Without VNNI products of 8-bit integers are added in pairs in 16 bits, where they saturate.
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._where = torch.device(device).type, torch.device(device).index or 0
        self._stream = card.new_stream(device) if device.startswith("cuda") else None
        self._run_options = onnxruntime.RunOptions()
        providers: list[Any] = ["CPUExecutionProvider"]
        if self._stream is not None:
            cuda = {
                "device_id": str(self._where[1]),
                "user_compute_stream": str(self._stream.cuda_stream),
                "use_tf32": "0",  # single precision is meant where a graph has it
                "prefer_nhwc": "1",  # what tensor cores take; else every convolution is laid out anew twice
                "arena_extend_strategy": "kSameAsRequested",  # not the next power of two: others need memory too
            }
            providers.insert(0, (_CUDA, cuda))
            # Otherwise the host waits for the card at the end of every call.
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own exception types are not importable on every version
            raise EngineError(f"{path.name} cannot be opened by onnxruntime: {one_line(error, 300)}") from error
        if self._stream is not None and _CUDA not in self._session.get_providers():
            # onnxruntime falls back to the CPU if the CUDA libraries cannot be loaded
            own = getattr(onnxruntime, "cuda_version", "") or "none"
            raise BackendMissing(
                f"onnxruntime cannot load CUDA: it is built for {own}, torch for {torch.version.cuda}, which must be of"
                " one major version: pip install 'warpfuse[cuda]', or give --device cpu"
            )
        self.name = path.name
        self.device = device
        self.inputs = narrow(self.name, [_spec(node) for node in self._session.get_inputs()], shapes)
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._slots: dict[tuple[torch.Size, ...], list[_Slot]] = {}
        self._next = 0

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run once; see `Engine`."""
        fed = check_feed(self.name, self.device, self.inputs, inputs)
        slots = self._slots.get(tuple(map(_SHAPE, fed))) or self._allocate(fed)
        (binding, outputs), self._next = slots[self._next], (self._next + 1) % SLOTS
        self._bind(binding.bind_input, self.inputs, fed)
        try:
            if self._stream is None:
                self._session.run_with_iobinding(binding, self._run_options)
            else:
                current = card.current(self.device)
                self._stream.wait_event(card.recorded(current))
                self._session.run_with_iobinding(binding, self._run_options)
                current.wait_event(card.recorded(self._stream))
        except Exception as error:  # as above: its own types
            raise EngineError(self._failed(fed, error)) from error
        return outputs

    def close(self) -> None:
        """Wait for the launched work, then drop the session and its slots."""
        if self._stream is not None:
            self._stream.synchronize()
        self._slots.clear()
        del self._session

    def _failed(self, fed: list[Tensor], error: Exception) -> str:
        """Why a run failed, on one line."""
        shapes = ", ".join(f"{spec.name} {list(tensor.shape)}" for spec, tensor in zip(self.inputs, fed, strict=True))
        words = f"{self.name} fails on {shapes}: {one_line(error, 300)}"
        if self._stream is None or not _NO_MEMORY.search(str(error)):
            return words
        free, total = (n >> 20 for n in card.memory_of(self.device))
        return f"{words}. {free} of {total} MiB are free on {self.device}: lower --size or --steps"

    def _allocate(self, fed: list[Tensor]) -> list[_Slot]:
        """Bind both slots for inputs of these shapes; a plain run gives the output shapes. Keeps `KEPT` shapes."""
        feed = {spec.name: tensor.cpu().numpy() for spec, tensor in zip(self.inputs, fed, strict=True)}
        try:
            shapes = [array.shape for array in self._session.run(None, feed)]
        except Exception as error:  # as above
            raise EngineError(self._failed(fed, error)) from error
        slots = []
        for _ in range(SLOTS):
            binding = self._session.io_binding()
            made = [
                torch.empty(shape, dtype=getattr(torch, spec.dtype), device=self.device)
                for spec, shape in zip(self.outputs, shapes, strict=True)
            ]
            self._bind(binding.bind_output, self.outputs, made)
            slots.append((binding, {spec.name: tensor for spec, tensor in zip(self.outputs, made, strict=True)}))
        if len(self._slots) == KEPT:
            del self._slots[next(iter(self._slots))]
        self._slots[tuple(map(_SHAPE, fed))] = slots
        return slots

    def _bind(self, bind: Any, specs: Sequence[TensorSpec], tensors: Sequence[Tensor]) -> None:
        where, index = self._where
        for spec, tensor in zip(specs, tensors, strict=True):
            bind(spec.name, where, index, np.dtype(spec.dtype), tensor.shape, tensor.data_ptr())


def _spec(node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise EngineError(f"'{node.name}' is {node.type}; known are {', '.join(_DTYPES)}")
    shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
    return TensorSpec(node.name, str(dtype).removeprefix("torch."), shape)
