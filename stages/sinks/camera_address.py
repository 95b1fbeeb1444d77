"""The address of a virtual camera: what follows `virtualcam:`, and the key `on_fault` that stands for a part of it."""

import re
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, Literal

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sources.schemes import scheme_of

SCHEME = "virtualcam"
OnFault = Literal["hold", "passthrough"]
PixelFormat = Literal["nv12", "yuyv"]

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


def with_on_fault(sinks: Any, on_fault: Any) -> tuple[Any, ...]:
    """The sinks' URLs, the virtual cameras among them with this `on-fault`, but for those that say one themselves.

    Raises ValueError: neither hold nor passthrough, or no virtual camera."""
    if on_fault not in _CHOICES["on_fault"]:
        raise ValueError(f"on_fault: expected hold or passthrough, got {on_fault!r}")
    told = tuple(sinks) if isinstance(sinks, list | tuple) else ()
    cameras = [sink for sink in told if isinstance(sink, str) and scheme_of(sink) == SCHEME]
    if not cameras:
        raise ValueError("on_fault is for virtual cameras, and there is none: give --sink virtualcam:")
    silent = [camera for camera in cameras if not re.search(r",\s*on[-_]fault\s*=", camera)]
    return tuple(f"{sink},on-fault={on_fault}" if sink in silent else sink for sink in told)
