"""Writing a network as a `.pt2` for the torch backend, with named inputs and outputs and a choice of precision."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from warpfuse.engine.backends.torch import TorchEngine

# Inputs and outputs that are not cast. The network takes sines or logarithms of inputs, for which half is too coarse.
_OF_ATTENTION = ("past_weight", "own_weight", "past", "kept")
_OF_CONTROLS = ("hint", "control_scale", "features", "adapter_scale")
AS_THEY_ARE = ("timestep", "time_ids", *_OF_ATTENTION, *_OF_CONTROLS)
GRAPH_BYTES = 16 << 20  # upper limit for the size of a program without its weights
_META = ("stack_trace", "nn_module_stack", "source_fn_stack")
_PRODUCTS = (
    "convolution",
    "conv2d",
    "linear",
    "matmul",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "scaled_dot_product_attention",
)


def write_program(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], *,
    stored: torch.dtype = torch.float32, compute: torch.dtype = torch.float32,
) -> None:  # fmt: skip
    """Export `network` at the static shapes of `inputs` by torch.export.

    stored   dtype of the weights in the file
    compute  weights and inputs are cast to this dtype. Norms, softmax and sums of products are in single precision
             within torch's kernels in any case

    `network` is not changed. Meanwhile memory holds a second copy of its weights, in the dtype `stored`.
    Raises OSError: the disk is full.
    """
    names = _used(network, inputs)
    with torch.no_grad():
        module = _Program(network, names, inputs, outputs, stored, compute)
        program = torch.export.export(module, (), dict(inputs), strict=False)
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)  # casts add these; they tie the program to the device of the trace
            continue
        for key in _META:
            node.meta.pop(key, None)  # paths of the machine it was traced on
    _check_room(path.parent, sum(tensor.nbytes for tensor in program.state_dict.values()))
    torch.export.save(program, path)


def _check_room(folder: Path, weights: int) -> None:
    """Raise OSError if the disk is too full. Checked right before writing: if the disk fills while torch writes an
    archive, the process is aborted."""
    if shutil.disk_usage(folder).free < weights + GRAPH_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _weights(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def _used(network: nn.Module, inputs: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that are used: an encoder, for example, may contain those of its decoder."""
    with torch.no_grad(), _Touched() as touched:
        network(*inputs.values())
    return [name for name, value in _weights(network) if id(value) in touched.seen]


class _Touched(TorchFunctionMode):
    """Collects the ids of tensors that are passed to torch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))


def run_program(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of the torch backend for `inputs` on this CPU. Raises EngineError if it cannot open the program."""
    with _WideProducts():  # type: ignore[no-untyped-call]
        engine = TorchEngine(path, "cpu", torch.get_num_threads(), None, False)
        try:
            return {name: tensor.clone() for name, tensor in engine(inputs).items()}
        finally:
            engine.close()


class _Program(nn.Module):
    """`network` called with weights of another dtype, by keyword inputs, with outputs by name."""

    def __init__(
        self, network: nn.Module, names: Sequence[str], inputs: Mapping[str, Tensor], outputs: Sequence[str],
        stored: torch.dtype, compute: torch.dtype,
    ) -> None:  # fmt: skip
        super().__init__()
        self._network = (network,)  # in a tuple: weights of a submodule would be written too, in single precision
        self._outputs, self._compute = tuple(outputs), compute
        self._names = tuple(names)
        weights = dict(_weights(network))
        for number, name in enumerate(names):
            value = weights[name]
            kept = value.detach().to(stored) if value.is_floating_point() else value
            self.register_buffer(f"weight_{number}", kept)
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in inputs]
        self._signature = inspect.Signature(parameters)

        def forward(*args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
            return self._run(self._signature.bind(*args, **kwargs).arguments)

        forward.__signature__ = self._signature  # type: ignore[attr-defined]  # torch.export names the inputs by it
        self.forward = forward

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {name: self._cast(getattr(self, f"weight_{n}")) for n, name in enumerate(self._names)}
        fed = tuple(tensor if name in AS_THEY_ARE else self._cast(tensor) for name, tensor in inputs.items())
        results = functional_call(self._network[0], weights, fed)
        results = (results,) if isinstance(results, Tensor) else results
        named = zip(self._outputs, results, strict=True)
        return {name: result if name in AS_THEY_ARE else result.float() for name, result in named}

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self._compute) if value.is_floating_point() else value


class _WideProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes products of float16 in single precision and rounds them, as a card does. On CPUs float16 products take
    minutes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        half = any(isinstance(value, Tensor) and value.dtype == torch.float16 for value in args)
        if not half or name not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        wide = [value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in args]
        return func(*wide, **(kwargs or {})).half()
