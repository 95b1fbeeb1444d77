"""Open a network by backend name: the one asked for is used or it is an error. There is no silent fallback."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from warpfuse.engine import backends
from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import BackendMissing, EngineError


def backend_names() -> list[str]:
    """Every backend this version has a file for, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(backends.__path__))


def missing(backend: str, device: str = "cpu") -> str | None:
    """Why a backend cannot run on this device here, with the remedy, or None when it can."""
    reason: str | None = _module(backend).missing(device)
    return reason


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
    for name in ("onnxruntime",):
        reason = missing(name, device)
        if reason is None:
            return name, f"{name} is installed and runs on {device}"
        reasons.append(reason)
    raise BackendMissing("; ".join(reasons))


def open_engine(path: str | Path, backend: str = "auto", device: str = "cpu", **options: Any) -> Engine:
    """Open an exported network.

    path     the network's file
    backend  a name of `backend_names()` or "auto"
    device   "cpu" or "cuda:N"
    options  of the backend: `threads` (intra-operator threads on a CPU)

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
    return importlib.import_module(f"{backends.__name__}.{backend}")
