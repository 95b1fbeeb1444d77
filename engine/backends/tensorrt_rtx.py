"""TensorRT-RTX, for RTX cards from Turing on. Builds in seconds, ahead of time and without a card too."""

from pathlib import Path

from warpfuse.engine import tensorrt_module
from warpfuse.engine.feed import Shapes
from warpfuse.engine.tensorrt_engine import TensorRtEngine, open_network
from warpfuse.engine.tensorrt_module import TENSORRT_RTX


def missing(device: str) -> str | None:
    """Why it cannot run on this device, with the remedy, or None."""
    return tensorrt_module.missing(TENSORRT_RTX, device)


def open(path: Path, device: str, threads: int = 0, shapes: Shapes | None = None) -> TensorRtEngine:
    """Open an ONNX file for one size. shapes: input name -> shape of every input with an axis of any length.

    threads is the CPU's and is not used.
    """
    return open_network(TENSORRT_RTX, path, device, shapes)
