"""The contract of an engine: one network, opened on one device by one backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from warpfuse.engine.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor  # for type checks only: `doctor` must work where torch cannot be imported


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type ("float32", ...) and shape of an input or output. None in the shape: any length."""

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


def is_capturable(engine: Engine) -> bool:
    """Whether the next call may be a part of a CUDA graph that the caller captures, on the stream of its other calls.

    An engine says so by a property `capturable`; without one it may not.
    """
    return bool(getattr(engine, "capturable", False))


class Engine(Protocol):
    """One network on one device.

    Calling it runs the network. There are two output slots, so an output is valid until the second call after its own;
    copy it to keep it longer. Only one thread may call it.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    backend: str
    device: str

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run the network once. Raises EngineError for an input that is missing, unknown or does not fit its spec."""

    def close(self) -> None:
        """Free the memory. Outputs returned earlier are no longer valid."""
