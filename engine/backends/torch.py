"""torch: runs an exported program (`.pt2`). It is the reference for the other backends.

On a CPU the program runs eagerly. On a GPU it is compiled and replayed as a CUDA graph, captured at the first call of a
size, or when opened if `shapes` is given. `engine/pt2_archive.py` describes and checks what an untrusted `.pt2` may do.

A program takes tensors and returns a dict of tensors. Its arguments and the dict's keys name the inputs and outputs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass
from torch.utils._pytree import tree_unflatten

from warpfuse.engine import device as card
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BackendMissing, EngineError, one_line
from warpfuse.engine.feed import Shapes, check_feed, memory_for, narrow
from warpfuse.engine.pt2_archive import check_archive
from warpfuse.engine.replay import SLOTS, Replay

_OLDEST = (2, 11)

Program = Callable[..., Mapping[str, Tensor]]


def missing(device: str) -> str | None:
    """Why torch cannot run on this device, with the remedy; None if it can."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _OLDEST:
        return f"torch {torch.__version__} is too old, 2.11 is needed: pip install -U torch"
    if device == "cpu":
        return None
    if not device.startswith("cuda"):
        return f"torch runs networks on cpu or cuda:N, not on {device}: give --device cpu"
    if torch.version.cuda is None:
        return "this torch is a build for CPUs: pip install a build of torch for CUDA, or give --device cpu"
    index = int(device.partition(":")[2] or 0)
    count = card.count()
    if index >= count:
        return f"torch sees {count} CUDA devices, {device} is not one of them: check nvidia-smi, or give --device cpu"
    return None


def open(
    path: Path, device: str, threads: int = 0, shapes: Shapes | None = None, compile: bool = True
) -> "TorchEngine":
    """Open `path`, or the `.pt2` of the same stem beside it.

    threads  threads of this engine's operators on a CPU, 0 for torch's own number
    shapes   input name -> shape: open for this one size
    compile  on a GPU, compile the program. Otherwise its operators are captured uncompiled, in seconds, not minutes
    """
    program = path.with_suffix(".pt2")
    if not program.is_file():
        raise EngineError(f"{program.name} is not beside {path.name}: export the bundle with --to torch")
    return TorchEngine(program, device, threads, shapes, compile)


class TorchEngine:
    """An exported program with two sets of outputs. See `Engine` for the contract."""

    backend = "torch"

    def __init__(self, path: Path, device: str, threads: int, shapes: Shapes | None, compile: bool) -> None:
        reason = missing(device)
        if reason is not None:
            raise BackendMissing(reason)
        check_archive(path)
        try:
            program = torch.export.load(path)
        except Exception as error:  # the many deserialisers of torch may raise anything
            raise EngineError(f"{path.name} cannot be opened by torch: {one_line(error, 300)}") from error
        self.name, self.device = path.name, device
        self._threads = threads
        self._cuda = card.is_card(device)
        signature = program.graph_signature
        meta = {node.name: node.meta.get("val") for node in program.graph.nodes}
        flat = list(signature.user_inputs)
        self._args, self._kwargs = tree_unflatten(flat, program.call_spec.in_spec)
        if not all(isinstance(name, str) for name in (*self._args, *self._kwargs.values())):
            raise EngineError(f"{path.name}: its arguments are not plain tensors. Export the bundle with --to torch")
        outputs = tree_unflatten(list(signature.user_outputs), program.call_spec.out_spec)
        if not isinstance(outputs, dict):
            raise EngineError(f"{path.name}: returns no dict of tensors. Export the bundle with --to torch")
        self.inputs = narrow(self.name, [_spec(self.name, name, meta[name]) for name in flat], shapes)
        self.outputs = tuple(_spec(self.name, name, meta[node]) for name, node in outputs.items())
        # This pass, not Module.to, because constants inside the graph also have a device.
        module = move_to_device_pass(program, device).module()
        self._run: Program = torch.compile(module, dynamic=False, fullgraph=True) if self._cuda and compile else module
        self._slots: list[dict[str, Tensor]] = []
        self._replay: Replay | None = None
        self._shapes: tuple[torch.Size, ...] = ()
        self._next = 0
        if all(None not in spec.shape for spec in self.inputs):
            self._bind([memory_for(spec, device).zero_() for spec in self.inputs])

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run once; see `Engine`."""
        fed = check_feed(self.name, self.device, self.inputs, inputs)
        if tuple(tensor.shape for tensor in fed) != self._shapes:
            self._bind(fed)
        named = {spec.name: tensor for spec, tensor in zip(self.inputs, fed, strict=True)}
        if self._replay is not None:
            return self._replay(named)
        slot, self._next = self._next, (self._next + 1) % SLOTS
        self._into(slot, named)
        return self._slots[slot]

    @property
    def capturable(self) -> bool:
        """See `is_capturable`. Before the first call nothing is allocated yet."""
        return self._replay is not None

    def close(self) -> None:
        """Drop the program, its graphs and its slots."""
        self._slots.clear()
        self._replay = None
        del self._run

    def _bind(self, fed: list[Tensor]) -> None:
        """Allocate both slots for inputs of these shapes and, on a GPU, capture. Repeated when a shape changes."""
        static = {spec.name: tensor.clone() for spec, tensor in zip(self.inputs, fed, strict=True)}
        first = self._call(static)
        self._slots = [{name: torch.empty_like(first[name]) for name in first} for _ in range(SLOTS)]
        if self._cuda:
            self._replay = None  # free its memory first
            self._replay = Replay(static, self._slots, lambda slot: self._into(slot, static))
        self._shapes = tuple(tensor.shape for tensor in fed)

    def _into(self, slot: int, named: Mapping[str, Tensor]) -> None:
        for name, tensor in self._call(named).items():
            self._slots[slot][name].copy_(tensor)

    def _call(self, named: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        args = [named[name] for name in self._args]
        kwargs = {key: named[name] for key, name in self._kwargs.items()}
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode():
                return self._run(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise EngineError(f"{self.name}: {one_line(error, 300)}. Lower --size or --steps") from error
        except (RuntimeError, AssertionError) as error:
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in named.items())
            raise EngineError(f"{self.name} fails on {shapes}: {one_line(error, 300)}") from error
        finally:
            torch.set_num_threads(before)


def _spec(network: str, name: str, value: Any) -> TensorSpec:
    if not isinstance(value, Tensor):
        raise EngineError(f"{network}: '{name}' is no tensor. Export the bundle with --to torch")
    shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), shape)
