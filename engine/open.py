"""Open a network by backend name: the one asked for is used or it is an error. There is no silent fallback."""

from pathlib import Path
from typing import Any

from warpfuse.engine import backends
from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import BackendMissing, EngineError
from warpfuse.engine.registry import load_module, module_names


def backend_names() -> list[str]:
    """Every backend this version has a file for, installed or not."""
    return sorted(name.replace("_", "-") for name in module_names(backends))


def missing(backend: str, device: str = "cpu") -> str | None:
    """Why a backend cannot run on this device here, with the remedy, or None when it can."""
    reason: str | None = _module(backend).missing(device)
    return reason


def network_name(path: Path) -> str:
    """What the network of a file is called: "unet" of unet.onnx, and of unet.int8.onnx too."""
    return path.name.partition(".")[0]


AUTO = {"cpu": ("onnxruntime",), "cuda": ("onnxruntime", "tensorrt", "tensorrt-rtx")}
"""What "auto" tries, by kind of device. ONNX Runtime opens any bundle at any size in a second. TensorRT is faster but
builds for each size first, for minutes on some cards: it is built meanwhile and takes over (`upgrade_of`). torch needs
a file few bundles carry, and is the reference rather than a way to run."""


UPGRADES = {"cpu": (), "cuda": ("tensorrt", "tensorrt-rtx")}
"""What is built while "auto" runs on what it has, and takes over, by kind of device."""


def upgrade_of(asked: str, taken: str, device: str) -> str | None:
    """The backend that is to take over from the one `choose_backend` took, or None: only "auto" leaves the choice."""
    if asked != "auto":
        return None
    candidates = UPGRADES.get(device.partition(":")[0], ())
    return next((name for name in candidates if name != taken and missing(name, device) is None), None)


def choose_backend(asked: str, device: str) -> tuple[str, str]:
    """The backend that runs on this device: its name, and why it was taken. "auto" takes the first that can.

    Raises EngineError for an unknown name, BackendMissing when the one asked for, or every one, cannot run there.
    """
    if asked != "auto":
        reason = missing(asked, device)
        if reason is not None:
            raise BackendMissing(reason)
        return asked, "asked for"
    reasons = []
    for name in AUTO.get(device.partition(":")[0], AUTO["cpu"]):
        reason = missing(name, device)
        if reason is None:
            return name, f"{name} is installed and runs on {device}"
        reasons.append(reason)
    raise BackendMissing("; ".join(reasons))


def open_engine(path: str | Path, backend: str = "auto", device: str = "cpu", **options: Any) -> Engine:
    """Open an exported network.

    path     the network's file, ONNX; torch opens the `.pt2` of the same stem beside it
    backend  a name of `backend_names()` or "auto"
    device   "cpu" or "cuda:N"
    options  of the backend. Every one takes `threads` (intra-operator threads on a CPU, 0 for its own choice) and
             `shapes` (input name -> shape: the engine is opened for this size, its specs tell it, another is refused)

    Raises BackendMissing, EngineError.
    """
    backend, _ = choose_backend(backend, device)
    path = Path(path)
    if not path.is_file():
        raise EngineError(f"{path}: no such network. Export the bundle again")
    engine: Engine = _module(backend).open(path, device, **options)
    return engine


def _module(backend: str) -> Any:
    if backend not in backend_names():
        raise EngineError(f"no backend called {backend!r}. Known: auto, {', '.join(backend_names())}")
    return load_module(backends, backend.replace("-", "_"))
