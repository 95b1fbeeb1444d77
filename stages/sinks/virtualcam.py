"""A virtual camera as a sink: `virtualcam:` or `virtualcam:/dev/video10,fps=30,format=yuyv,on-fault=passthrough`."""

import contextlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from warpfuse.engine.errors import one_line
from warpfuse.stages.errors import SinkError, SourceError
from warpfuse.stages.sinks.bt709 import require_even
from warpfuse.stages.sinks.camera_address import SCHEME, CameraSettings
from warpfuse.stages.sinks.camera_thread import CameraThread, Output
from warpfuse.stages.sinks.v4l2_output import V4l2Output, find_output, require_output
from warpfuse.stages.sources import v4l2
from warpfuse.stages.sources.camera import Wish, locate
from warpfuse.stages.sources.schemes import scheme_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = (SCHEME,)


def wants_raw(url: str) -> bool:
    """The camera is to show the source's picture while no styled one comes."""
    return CameraSettings.parse(url).on_fault == "passthrough"


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError, with the remedy, for a missing device, a device that is no output, or the source's device."""
    settings = CameraSettings.parse(url)
    if sys.platform != "linux":
        _pyvirtualcam()
        return
    device = settings.device or find_output()
    require_output(device)
    if source is not None and _is_source(device, source):
        raise SinkError(f"{device} is the source as well. Name another device.")


def _is_source(device: str, source: str) -> bool:
    if scheme_of(source) != "camera":
        return False
    with contextlib.suppress(SourceError):  # reported when the source is opened
        camera = locate(source, Wish.parse(source).camera, v4l2.devices())
        return camera.resolve() == Path(device).resolve()
    return False


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> CameraThread:
    """Open the camera, which shows black at first. Raises SinkError."""
    settings = CameraSettings.parse(url)
    require_even("virtualcam:", size)
    fps = settings.fps or info.fps
    if sys.platform == "linux":
        device = settings.device or find_output()
        output: Output = V4l2Output(device, size, fps, settings.format)
    else:
        device, output = "virtualcam:", _foreign(settings.device, size, fps)
    return CameraThread(device, output, info, size, fps, settings.on_fault)


def _foreign(device: str, size: tuple[int, int], fps: Fraction) -> Output:
    """The camera of OBS (Windows, macOS) or Unity Capture, by pyvirtualcam, which converts the colours itself."""
    library = _pyvirtualcam()
    try:
        return _Foreign(library.Camera(*size, float(fps), device=device or None))
    except RuntimeError as error:
        raise SinkError(f"virtualcam: {one_line(error)}. Start OBS once: it installs its camera.") from None


class _Foreign:
    """pyvirtualcam's camera as an `Output`."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera
        self.send = camera.send
        self.close = camera.close


def _pyvirtualcam() -> Any:
    try:
        import pyvirtualcam
    except ImportError:
        raise SinkError("virtualcam: needs a package on this system: pip install 'warpfuse[virtualcam]'") from None
    return pyvirtualcam
