"""The two TensorRT modules, for data-centre cards and for RTX cards. Both have the same interface."""

import importlib
import importlib.util
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from warpfuse.engine import device as card
from warpfuse.engine.errors import BackendMissing, EngineError, one_line


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two TensorRT modules.

    ahead  it builds in seconds, for a named compute capability and without a GPU. The rest is compiled on the card at
           the first run and kept in a runtime cache. If False, it measures kernels on the card during the build
    """

    backend: str
    module: str
    extra: str
    ahead: bool


TENSORRT = Flavour("tensorrt", "tensorrt", "tensorrt", ahead=False)
TENSORRT_RTX = Flavour("tensorrt-rtx", "tensorrt_rtx_bindings", "tensorrt-rtx", ahead=True)


def not_installed(flavour: Flavour) -> str | None:
    """Why the module cannot be imported, with the remedy; None if it can."""
    try:
        importlib.import_module(flavour.module)
    except ImportError as error:
        found = importlib.util.find_spec(flavour.module) is not None
        what = f"cannot be loaded ({one_line(error, 200)})" if found else "is not installed"
        return f"{flavour.backend} {what}: pip install 'warpfuse[{flavour.extra}]'"
    return None


def missing(flavour: Flavour, device: str) -> str | None:
    """Why networks cannot run on this device, with the remedy; None if they can."""
    reason = not_installed(flavour)
    if reason is not None:
        return reason
    if not device.startswith("cuda"):
        return f"{flavour.backend} runs on NVIDIA cards, not on {device}: give --device cuda:0 or another --backend"
    index, count = torch.device(device).index or 0, card.count()
    if index >= count:
        return f"{flavour.backend}: torch sees {count} CUDA devices, {device} is not one of them: check nvidia-smi"
    kind = capability(device)
    if flavour.ahead and kind not in capabilities(flavour):
        name = card.name_of(device)
        return (
            f"{flavour.backend} runs on {', '.join(capabilities(flavour))}, {name} is {kind}: give --backend tensorrt"
        )
    return None


def load(flavour: Flavour) -> Any:
    """Import the module. Raises BackendMissing."""
    reason = not_installed(flavour)
    if reason is not None:
        raise BackendMissing(reason)
    return importlib.import_module(flavour.module)


def version(flavour: Flavour) -> str:
    """The version of the library. It opens no plans of other versions."""
    return str(load(flavour).__version__)


def capability(device: str) -> str:
    """Compute capability of a card, as "sm89"."""
    major, minor = card.capability_of(device)
    return f"sm{major}{minor}"


def capabilities(flavour: Flavour) -> list[str]:
    """The compute capabilities that `flavour` can build for ahead of time."""
    return [name.lower() for name in load(flavour).ComputeCapability.__members__ if name.startswith("SM")]


class Complaints:
    """The errors that TensorRT logged in each thread. They explain a call that returned nothing.

    A process has one logger, because TensorRT ignores the loggers of later builders; see `complaints`.
    """

    def __init__(self, trt: Any) -> None:
        lines: threading.local = threading.local()
        errors = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if severity in errors:
                    if not hasattr(lines, "kept"):
                        lines.kept = deque(maxlen=20)
                    lines.kept.append(text)

        self._lines = lines
        self.logger = Logger()

    def take(self) -> str:
        """The first error in this thread since the last `take`, on one line; empty if there was none."""
        kept = getattr(self._lines, "kept", None) or deque()
        first = " ".join(str(kept[0]).split())[:300] if kept else ""
        kept.clear()
        return first


@cache
def complaints(flavour: Flavour) -> Complaints:
    """The log of one module."""
    return Complaints(load(flavour))


def check_capability(flavour: Flavour, name: str) -> None:
    """Raise EngineError unless `flavour` builds ahead of time for `name`."""
    if name not in capabilities(flavour):
        raise EngineError(f"{flavour.backend} builds for {', '.join(capabilities(flavour))}, not for {name!r}")
