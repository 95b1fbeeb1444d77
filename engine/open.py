"""Open a network with a backend given by name. If that backend cannot be used it is an error: no silent fallback."""

from pathlib import Path
from typing import Any

from warpfuse.engine import backends
from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import BackendMissing, EngineError
from warpfuse.engine.registry import load_module, module_names


def backend_names() -> list[str]:
    """Every backend there is a module for, whether its libraries are installed or not."""
    return sorted(name.replace("_", "-") for name in module_names(backends))


def missing(backend: str, device: str = "cpu") -> str | None:
    """Why a backend cannot run on this device, with the remedy; None if it can."""
    reason: str | None = _module(backend).missing(device)
    return reason


def network_name(path: Path) -> str:
    """The name of a file's network: "unet" for unet.onnx and for unet.int8.onnx."""
    return path.name.partition(".")[0]


AUTO = {"cpu": ("onnxruntime",), "cuda": ("onnxruntime", "tensorrt", "tensorrt-rtx")}
"""The backends that "auto" tries, by kind of device. ONNX Runtime opens any bundle at any size in a second. TensorRT is
faster, but first builds for each size, on some cards for minutes; so it is built meanwhile and used when it is ready
(`upgrade_of`). torch is the reference for the others; it needs a file that few bundles have."""


UPGRADES = {"cpu": (), "cuda": ("tensorrt", "tensorrt-rtx")}
"""The backends that are built while "auto" runs on another one, and then replace it, by kind of device."""


def upgrade_of(asked: str, taken: str, device: str) -> str | None:
    """The backend that is to replace `taken`, which `choose_backend` chose. None unless "auto" was asked for."""
    if asked != "auto":
        return None
    candidates = UPGRADES.get(device.partition(":")[0], ())
    return next((name for name in candidates if name != taken and missing(name, device) is None), None)


def choose_backend(asked: str, device: str) -> tuple[str, str]:
    """The backend to use on this device, and the reason for the choice. "auto" gives the first that can run there.

    Raises EngineError for an unknown name, BackendMissing if the backend asked for, or with "auto" any, cannot run.
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

    path     the network's ONNX file; torch opens the `.pt2` of the same stem beside it
    backend  a name of `backend_names()` or "auto"
    device   "cpu" or "cuda:N"
    options  of the backend. All take `threads` (intra-operator threads on a CPU, 0 for the backend's choice) and
             `shapes` (input name -> shape: the engine is opened for this size and refuses others)

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
