"""The contract of an engine: one network, opened on one device by one backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from warpfuse.engine.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor  # for the types alone: the doctor must be able to say that torch is broken


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type ("float32", ...) and shape of an input or output; None is an axis of any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def check(self, network: str, tensor: Tensor) -> None:
        """Raise EngineError unless `tensor` fits."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        fits = dtype == self.dtype and len(tensor.shape) == len(self.shape)
        for want, got in zip(self.shape, tensor.shape, strict=False):
            if want is not None and want != got:
                fits = False
        if not fits:
            shape = "[" + ", ".join("?" if n is None else str(n) for n in self.shape) + "]"
            raise EngineError(
                f"{network}: input '{self.name}' was built as {self.dtype} {shape}, "
                f"the graph feeds {dtype} {list(tensor.shape)}. Export the bundle again for this size"
            )


class Engine(Protocol):
    """One network on one device.

    Calling it runs the network. The outputs belong to the engine until the next-but-one call: there are two slots, one
    is filled while the reader still uses the other. A reader that keeps an output longer copies it. One thread calls.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    backend: str
    device: str

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run once. Raises EngineError when an input is missing, unknown, or of another type, shape or device."""

    def close(self) -> None:
        """Give back the memory; outputs handed out before are no longer valid."""
