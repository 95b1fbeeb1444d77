"""The address of a virtual camera, and the key `on_fault`, which sets a part of it."""

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
    """The settings after `virtualcam:`.

    device    path of the device (Linux) or its name in the backend; empty: the first one
    fps       constant rate, frames a second; 0: the source's rate
    format    nv12 for most programs, yuyv for programs that cannot show it
    on_fault  what is shown while no styled picture comes: hold: the last one, passthrough: the source
    """

    device: str = ""
    fps: Fraction = Fraction(0)
    format: PixelFormat = "nv12"
    on_fault: OnFault = "hold"

    @classmethod
    def parse(cls, url: str) -> "CameraSettings":
        """Parse a camera's URL. Raises SinkError for unknown settings or values."""
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
    """Add `on-fault` to the URLs of virtual cameras that do not set it. Returns all URLs.

    Raises ValueError for a value other than hold and passthrough, or without a virtual camera.
    """
    if on_fault not in _CHOICES["on_fault"]:
        raise ValueError(f"on_fault: expected hold or passthrough, got {on_fault!r}")
    urls = tuple(sinks) if isinstance(sinks, list | tuple) else ()
    cameras = [url for url in urls if isinstance(url, str) and scheme_of(url) == SCHEME]
    if not cameras:
        raise ValueError("on_fault is for virtual cameras, and there is none: give --sink virtualcam:")
    without = [camera for camera in cameras if not re.search(r",\s*on[-_]fault\s*=", camera)]
    return tuple(f"{url},on-fault={on_fault}" if url in without else url for url in urls)
