"""Common parts of the nodes: their own socket types, the category, and inputs of several nodes."""

from collections.abc import Callable
from typing import Any

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io
from PIL import Image

CATEGORY = "warpfuse"

BUNDLE = io.Custom("WARPFUSE_BUNDLE")
"""Folder of a verified bundle."""

MOTION = io.Custom("WARPFUSE_MOTION")
"""Flow and trust of a clip (`comfy.motion.ClipMotion`)."""

PREVIEW_PX = 512


def progress(frames: int, preview: bool = True) -> Callable[[int, Any], None]:
    """A function to call after each frame, with the frames done and the newest picture. It advances the progress bar,
    shows the preview, and raises if the user has interrupted the run."""
    bar = ProgressBar(frames)

    def each(done: int, rgb: Any) -> None:
        throw_exception_if_processing_interrupted()
        shown = ("JPEG", Image.fromarray(rgb), PREVIEW_PX) if preview and rgb is not None else None
        bar.update_absolute(done, frames, shown)

    return each


def share(name: str, default: float, tooltip: str, **more: Any) -> Any:
    """An input for a number in [0, 1]."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip, **more)


def images(tooltip: str) -> Any:
    """An input for frames."""
    return io.Image.Input("images", tooltip=tooltip)


def motion(**more: Any) -> Any:
    """An input for flow and trust of the frames."""
    return MOTION.Input("motion", tooltip="Flow and trust of the same frames, from WarpfuseFlow.", **more)
