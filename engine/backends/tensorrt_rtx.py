"""TensorRT-RTX, for RTX cards from Turing on. It builds in seconds, ahead of time, even without a card."""

from pathlib import Path

from warpfuse.engine import tensorrt_module
from warpfuse.engine.feed import Shapes
from warpfuse.engine.tensorrt_engine import TensorRtEngine, open_network
from warpfuse.engine.tensorrt_module import TENSORRT_RTX


def missing(device: str) -> str | None:
    """Why it cannot run on this device, with the remedy; None if it can."""
    return tensorrt_module.missing(TENSORRT_RTX, device)


def open(path: Path, device: str, threads: int = 0, shapes: Shapes | None = None) -> TensorRtEngine:
    """Open an ONNX file for one size. shapes: input name -> shape of every input with an axis of any length.

    threads is for CPUs and not used.
    """
    return open_network(TENSORRT_RTX, path, device, shapes)
