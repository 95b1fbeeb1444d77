"""A virtual camera: `virtualcam:` or `virtualcam:/dev/video10,fps=30,format=yuyv,on-fault=passthrough`."""

import contextlib
import re
import sys
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any

from warpfuse.engine.errors import one_line
from warpfuse.stages.errors import SinkError, SourceError
from warpfuse.stages.sinks.bt709 import require_even
from warpfuse.stages.sinks.camera_thread import CameraThread, OnFault, Output
from warpfuse.stages.sinks.v4l2_output import PixelFormat, V4l2Output, find_output, require_output
from warpfuse.stages.sources import v4l2
from warpfuse.stages.sources.camera import Wish, locate
from warpfuse.stages.sources.schemes import scheme_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("virtualcam",)

_EXAMPLE = "virtualcam:/dev/video10,fps=30,format=nv12,on-fault=hold"
_CHOICES = {"format": ("nv12", "yuyv"), "on_fault": ("hold", "passthrough")}


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """What follows `virtualcam:`.

    device    path (Linux) or name of the backend's device; empty: the first there is
    fps       constant rate, frames a second; 0: the source's
    format    nv12 for most programs, yuyv for those that show nothing
    on_fault  while no styled picture comes: hold shows the last one, passthrough the source
    """

    device: str = ""
    fps: Fraction = Fraction(0)
    format: PixelFormat = "nv12"
    on_fault: OnFault = "hold"

    @classmethod
    def parse(cls, url: str) -> "CameraSettings":
        """Raises SinkError for what is not understood."""
        device, *parts = url.partition(":")[2].split(",")
        settings = cls(device=device)
        for part in filter(None, parts):
            key, _, value = part.partition("=")
            settings = replace(settings, **_value(url, key.strip().replace("-", "_"), value.strip()))
        return settings


def _value(url: str, key: str, value: str) -> dict[str, Any]:
    known = [field.name for field in fields(CameraSettings)][1:]
    if key not in known:
        near = get_close_matches(key, known, 1)
        names = [name.replace("_", "-") for name in near or known]
        hint = f"Did you mean '{names[0]}'?" if near else f"Known are {', '.join(names)}."
        raise SinkError(f"{url}: '{key}' is not understood. {hint} Write, for example, {_EXAMPLE}.")
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            shown = key.replace("_", "-")
            raise SinkError(f"{url}: {shown} is {' or '.join(_CHOICES[key])}, not '{value}'.")
        return {key: value}
    try:
        fps = Fraction(value)
    except (ValueError, ZeroDivisionError):
        raise SinkError(f"{url}: fps is a number, not '{value}'.") from None
    if not 1 <= fps <= 240:
        raise SinkError(f"{url}: fps is {value}; it must be from 1 to 240.")
    return {key: fps}


def wants_raw(url: str) -> bool:
    """The camera shows the source's picture while no styled one comes."""
    return CameraSettings.parse(url).on_fault == "passthrough"


def with_on_fault(sinks: Any, on_fault: Any) -> tuple[Any, ...]:
    """The sinks' URLs, the virtual cameras among them with this `on-fault`, but for those that say one themselves.

    Raises ValueError: neither hold nor passthrough, or no virtual camera."""
    if on_fault not in _CHOICES["on_fault"]:
        raise ValueError(f"on_fault: expected hold or passthrough, got {on_fault!r}")
    told = tuple(sinks) if isinstance(sinks, list | tuple) else ()
    cameras = [sink for sink in told if isinstance(sink, str) and scheme_of(sink) in SCHEMES]
    if not cameras:
        raise ValueError("on_fault is for virtual cameras, and there is none: give --sink virtualcam:")
    silent = [camera for camera in cameras if not re.search(r",\s*on[-_]fault\s*=", camera)]
    return tuple(f"{sink},on-fault={on_fault}" if sink in silent else sink for sink in told)


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError, with the remedy, for a device that is missing, is no output, or is the source as well."""
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
    with contextlib.suppress(SourceError):  # who opens the source says what is wrong with it
        camera = locate(source, Wish.parse(source).camera, v4l2.devices())
        return camera.resolve() == Path(device).resolve()
    return False


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> CameraThread:
    """Open the camera; it is there, black, from now on. Raises SinkError."""
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
    """The camera of OBS (Windows, macOS) or Unity Capture, by pyvirtualcam. It converts the colours itself."""
    library = _pyvirtualcam()
    try:
        return _Foreign(library.Camera(*size, float(fps), device=device or None))
    except RuntimeError as error:
        raise SinkError(f"virtualcam: {one_line(error)}. Start OBS once: it installs its camera.") from None


class _Foreign:
    """pyvirtualcam's camera with our names."""

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
