"""TensorRT, for data-centre cards and Jetson. It builds on the card itself, in minutes, and the plan is kept."""

from pathlib import Path

from warpfuse.engine import tensorrt_module
from warpfuse.engine.feed import Shapes
from warpfuse.engine.tensorrt_engine import TensorRtEngine, open_network
from warpfuse.engine.tensorrt_module import TENSORRT


def missing(device: str) -> str | None:
    """Why it cannot run on this device, with the remedy; None if it can."""
    return tensorrt_module.missing(TENSORRT, device)


def open(
    path: Path, device: str, threads: int = 0, shapes: Shapes | None = None, beside: bool = False
) -> TensorRtEngine:
    """Open an ONNX file for one size. shapes: input name -> shape of every input with an axis of any length.

    threads is for CPUs and not used.
    beside   if a plan has to be built, a run uses the card meanwhile (`plan_for`)
    """
    return open_network(TENSORRT, path, device, shapes, beside=beside)
