"""Run a TensorRT plan on the caller's stream, with fixed addresses and a CUDA graph for each of two output slots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.brought_plans import brought_plan
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BackendMissing, EngineError
from warpfuse.engine.feed import Shapes, check_feed, memory_for
from warpfuse.engine.files import write_whole
from warpfuse.engine.replay import SLOTS, Replay
from warpfuse.engine.tensorrt_build import kept_beside, plan_for, plan_key
from warpfuse.engine.tensorrt_module import Flavour, capability, complaints, load, missing, version

_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "UINT8": torch.uint8,
}


def open_network(
    flavour: Flavour, path: Path, device: str, shapes: Shapes | None, *, beside: bool = False
) -> "TensorRtEngine":
    """Open an ONNX file on a card, with the bundle's plan if it is trusted, else one from the cache, else a new one.

    beside  see `plan_for`

    A build takes seconds with TensorRT-RTX, minutes with TensorRT. Raises BackendMissing, EngineError.
    """
    reason = missing(flavour, device)
    if reason is not None:
        raise BackendMissing(reason)
    cache = ArtifactCache()
    kind = capability(device)
    gpu = kind if flavour.ahead else f"{card.name_of(device)} {kind}"
    with card.selected(device):
        brought = brought_plan(path, plan_key(flavour, path, shapes, gpu))
        plan = brought or plan_for(flavour, path, shapes, gpu, cache, beside=beside)
        compiled = kept_beside(cache, "runtime", plan.stem, card.name_of(device)) if flavour.ahead else None
        return TensorRtEngine(flavour, path.name, plan, device, compiled)


class TensorRtEngine:
    """A plan on one card. See `Engine` for the contract; every input has one shape.

    Always call it on the same stream, because its inputs are copied into one set of buffers (engine/replay.py).
    """

    def __init__(self, flavour: Flavour, name: str, plan: Path, device: str, compiled: Path | None) -> None:
        trt, self._log = load(flavour), complaints(flavour)
        self.backend, self.name, self.device = flavour.backend, name, device
        self._flavour = flavour
        self._log.take()
        check_memory(name, plan.stat().st_size, device, "weights")
        # `engine_host_code_allowed` stays off, because plans built here hold no host code. It does not make a plan from
        # an untrusted source safe (engine/brought_plans.py); only trusted plans come here.
        runtime = trt.Runtime(self._log.logger)
        data = plan.read_bytes()
        self._engine = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(not_opened(trt, runtime, flavour, name, plan, data, self._log.take()))
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        fed = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        check_memory(name, self._engine.device_memory_size_v2, device, "working memory")
        self._context, kernels = self._execution_context(trt, compiled)
        for tensor in fed:
            self._context.set_input_shape(tensor, tuple(self._engine.get_tensor_profile_shape(tensor, 0)[1]))
        specs = {tensor: self._spec(trt, tensor) for tensor in names}
        self.inputs = tuple(specs[n] for n in names if n in fed)
        self.outputs = tuple(specs[n] for n in names if n not in fed)
        inputs = {spec.name: memory_for(spec, device).zero_() for spec in self.inputs}
        self._slots = [{spec.name: memory_for(spec, device) for spec in self.outputs} for _ in range(SLOTS)]
        for tensor, memory in inputs.items():
            self._context.set_tensor_address(tensor, memory.data_ptr())
        try:
            self._replay = Replay(inputs, self._slots, self._launch, self._capturable)
        except RuntimeError as error:
            raise EngineError(f"{name} cannot be captured on {device}: {self._log.take() or error}") from error
        if compiled is not None and kernels is not None:
            write_whole(compiled, bytes(kernels.serialize()))

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run once on the current stream; see `Engine`."""
        fed = check_feed(self.name, self.device, self.inputs, inputs)
        return self._replay({spec.name: tensor for spec, tensor in zip(self.inputs, fed, strict=True)})

    @property
    def capturable(self) -> bool:
        """See `is_capturable`."""
        return self._replay.capturable

    def close(self) -> None:
        """Wait for the launched work, then free plan, graphs and slots."""
        card.settle(self.device)
        del self._replay, self._context, self._engine
        self._slots.clear()

    def _capturable(self, stream: card.Stream) -> bool:
        """RTX's tells; the other one's always is, or fails where it is captured."""
        return not self._flavour.ahead or bool(self._context.is_stream_capturable(stream.cuda_stream))

    def _launch(self, slot: int) -> None:
        for name, memory in self._slots[slot].items():
            self._context.set_tensor_address(name, memory.data_ptr())
        if not self._context.execute_async_v3(card.current(self.device).cuda_stream):
            raise EngineError(f"{self.name} failed on {self.device}: {self._log.take() or 'no reason given'}")

    def _execution_context(self, trt: Any, compiled: Path | None) -> tuple[Any, Any]:
        """The context, and the cache of kernels compiled on this card. Kernels that do not fit are compiled again."""
        kernels = None
        if compiled is None:
            context = self._engine.create_execution_context()
        else:
            config = self._engine.create_runtime_config()
            kernels = config.create_runtime_cache()
            if compiled.is_file():
                kernels.deserialize(compiled.read_bytes())
            config.set_runtime_cache(kernels)
            # Else the kernels of the size are compiled while others run, and a capture keeps those others for good.
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
            config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            context = self._engine.create_execution_context(config)
            if context is not None:  # a capture may allocate nothing, so all it needs is there before
                size = max(1, self._engine.device_memory_size_v2)
                self._memory = torch.empty(size, dtype=torch.uint8, device=self.device)
                context.set_device_memory(self._memory.data_ptr(), size)
        if context is None:
            asked = self._engine.device_memory_size_v2
            raise EngineError(_out_of_memory(self.name, asked, self.device, "working memory", self._log.take()))
        return context, kernels

    def _spec(self, trt: Any, tensor: str) -> TensorSpec:
        kind = self._engine.get_tensor_dtype(tensor).name
        if kind not in _DTYPES:
            raise EngineError(f"{self.name}: '{tensor}' is {kind}; known are {', '.join(_DTYPES)}")
        if self._engine.get_tensor_location(tensor) != trt.TensorLocation.DEVICE:
            raise EngineError(f"{self.name}: '{tensor}' is a shape kept on the host. Export the bundle for one size")
        shape = tuple(self._context.get_tensor_shape(tensor))
        if -1 in shape:
            raise EngineError(f"{self.name}: the shape of '{tensor}' depends on values: {list(shape)}")
        return TensorSpec(tensor, str(_DTYPES[kind]).removeprefix("torch."), shape)


def not_opened(trt: Any, runtime: Any, flavour: Flavour, name: str, plan: Path, data: bytes, reason: str) -> str:
    """Why a plan could not be opened, in words, by TensorRT's diagnosis if it gives one."""
    remedy = f"Remove {plan} and open it again: it is built anew"
    if hasattr(runtime, "get_engine_validity"):
        _, flags = runtime.get_engine_validity(data)
        found = [kind.name for kind in trt.EngineInvalidityDiagnostics.__members__.values() if int(flags) & kind.value]
        told = {
            "VERSION_MISMATCH": f"was built by another version than {flavour.backend} {version(flavour)}",
            "UNSUPPORTED_CC": "was built for another card",
            "OLD_CUDA_DRIVER": "needs a newer NVIDIA driver",
            "OLD_CUDA_RUNTIME": "needs a newer CUDA runtime",
            "INSUFFICIENT_GPU_MEMORY": "does not fit into the free memory of the card: lower --size or --steps",
            "MALFORMED_ENGINE": "is torn",
        }
        words = [told.get(kind, kind.lower()) for kind in found]
        if words:
            return f"{name}: its plan {' and '.join(words)}. {remedy}"
    opener = f"{flavour.backend} {version(flavour)}"
    return f"{name}: its plan cannot be opened by {opener}: {reason or 'no reason given'}. {remedy}"


def check_memory(name: str, asked: int, device: str, what: str) -> None:
    """Raise EngineError unless `asked` bytes are free on the card."""
    free, _ = card.memory_of(device)
    if asked > free:
        raise EngineError(_out_of_memory(name, asked, device, what, ""))


def _out_of_memory(name: str, asked: int, device: str, what: str, reason: str) -> str:
    free, total = (n >> 20 for n in card.memory_of(device))
    detail = f" ({reason})" if reason else ""
    return (
        f"{name}: {what} of {asked >> 20} MiB asked, {free} of {total} MiB free on {device}{detail}. "
        "Lower --size or --steps, or close what else uses the card"
    )
