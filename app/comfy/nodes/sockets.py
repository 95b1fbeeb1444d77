"""What the nodes share: sockets that only they have, their category, and inputs that several take."""

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
    """What to call after each frame, with the frames done and the newest picture: it moves the bar, shows the preview,
    and raises where the user has interrupted."""
    bar = ProgressBar(frames)

    def each(done: int, rgb: Any) -> None:
        throw_exception_if_processing_interrupted()
        shown = ("JPEG", Image.fromarray(rgb), PREVIEW_PX) if preview and rgb is not None else None
        bar.update_absolute(done, frames, shown)

    return each


def share(name: str, default: float, tooltip: str, **more: Any) -> Any:
    """A number 0..1."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip, **more)


def images(tooltip: str) -> Any:
    """Frames in their order."""
    return io.Image.Input("images", tooltip=tooltip)


def motion(**more: Any) -> Any:
    """Flow and trust of the same frames."""
    return MOTION.Input("motion", tooltip="Flow and trust of the same frames, from WarpfuseFlow.", **more)
