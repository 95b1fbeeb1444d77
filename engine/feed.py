"""Checks of a network's input that are the same for every backend."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import EngineError

Shapes = Mapping[str, Sequence[int]]


def check_feed(network: str, device: str, specs: Sequence[TensorSpec], inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The inputs in the order of `specs`, contiguous. Raises EngineError for an input that does not fit its spec."""
    there = torch.device(device)
    fed = []
    for spec in specs:
        tensor = inputs.get(spec.name)
        if tensor is None or len(inputs) != len(specs):
            takes = _listed(spec.name for spec in specs)
            raise EngineError(f"{network}: takes {takes}, the graph feeds {_listed(inputs)}")
        spec.check(network, tensor)
        if tensor.device.type != there.type or (there.index is not None and tensor.device.index != there.index):
            raise EngineError(f"{network}: '{spec.name}' is on {tensor.device}, the engine on {device}")
        fed.append(tensor.contiguous())
    return fed


def narrow(network: str, specs: Sequence[TensorSpec], shapes: Shapes | None) -> tuple[TensorSpec, ...]:
    """The specs with the shapes that `shapes` gives; the other specs stay as they are.

    Raises EngineError if `shapes` names an unknown input, or a shape the network was not built for.
    """
    shapes = shapes or {}
    unknown = shapes.keys() - {spec.name for spec in specs}
    if unknown:
        raise EngineError(f"{network}: takes {_listed(s.name for s in specs)}, a shape is given for {_listed(unknown)}")
    for spec in specs:
        want = shapes.get(spec.name, spec.shape)
        fits = len(want) == len(spec.shape) and all(n in (None, m) for n, m in zip(spec.shape, want, strict=True))
        if not fits:
            built = [n or "?" for n in spec.shape]
            raise EngineError(
                f"{network}: input '{spec.name}' was built as [{', '.join(map(str, built))}], it is to be opened for "
                f"{list(want)}. Export the bundle again for this size"
            )
    return tuple(replace(spec, shape=tuple(shapes.get(spec.name, spec.shape))) for spec in specs)


def memory_for(spec: TensorSpec, device: str) -> Tensor:
    """An uninitialised tensor of the type and shape of `spec`, which must have no open axis."""
    return torch.empty([n or 0 for n in spec.shape], dtype=getattr(torch, spec.dtype), device=device)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
