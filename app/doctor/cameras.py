"""The cameras of this machine and their modes, for `warpfuse doctor --cameras`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from warpfuse.engine.errors import one_line
from warpfuse.stages.sources import v4l2
from warpfuse.stages.sources.camera import Wish, choose
from warpfuse.stages.sources.input_devices import device_kind
from warpfuse.stages.sources.v4l2 import Device, Mode
from warpfuse.stages.sources.v4l2_capture import CODECS


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera.

    modes    its modes
    usual    the mode that is used by default; None: unknown
    problem  why it cannot be used; empty: it can
    """

    device: Device
    modes: tuple[Mode, ...]
    usual: Mode | None
    problem: str = ""


def cameras() -> list[Camera]:
    """All cameras, also those in use by other programs. Never raises.

    On Windows and macOS the modes are unknown, `path` is the camera's address, and `driver` is FFmpeg's input device.
    """
    kind = device_kind()
    if kind is None:
        return [_examined(device) for device in v4l2.devices() if device.captures]
    try:
        found = kind.listed()
    except Exception as error:  # noqa: BLE001  (as below)
        return [Camera(Device(Path(), kind.format, "cameras", "", True), (), None, one_line(error))]
    addresses = (Path(f"camera:{index}") for index in range(len(found)))
    return [
        Camera(Device(path, kind.format, each.name, each.id, True), (), None)
        for path, each in zip(addresses, found, strict=True)
    ]


def to_dict(found: list[Camera]) -> list[dict[str, Any]]:
    """The cameras in plain types. Modes are addresses for `--source`."""
    return [
        {
            "path": str(camera.device.path),
            "card": camera.device.card,
            "bus": camera.device.bus,
            "links": [str(link) for link in v4l2.links(camera.device.path)],
            "driver": camera.device.driver,
            "usual": _usual(camera),
            "modes": [_url(camera.device.path, mode) for mode in camera.modes],
            "problem": camera.problem or None,
        }
        for camera in found
    ]


def table(found: list[Camera]) -> RenderableType:
    """A table of the cameras, with their modes by format and size, and their rates. The default mode is marked."""
    if not found:
        return Text("no camera: plug one in, or try --source pattern:", "yellow")
    parts: list[RenderableType] = []
    for camera in found:
        device = camera.device
        parts.append(Text.assemble((f"{device.path}  {device.card}", "bold"), f"  {device.driver}, {device.bus}"))
        parts.extend(Text(f"  {link}") for link in v4l2.links(device.path))
        grid = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for (form, width, height), rates in _by_size(camera.modes).items():
            usual = camera.usual is not None and (form, width, height) == (
                camera.usual.format,
                camera.usual.width,
                camera.usual.height,
            )
            unknown = "" if form in CODECS else "cannot be decoded here"
            grid.add_row(form.lower(), f"{width}x{height}", ", ".join(rates), "usual" if usual else unknown)
        parts.append(grid)
        if camera.problem:
            parts.append(Text(f"  {camera.problem}", "red"))
        if (usual_url := _usual(camera)) is not None:
            parts.append(Text(f"  warpfuse run --source {usual_url} ...\n", "cyan"))
    return Group(*parts)


def _examined(device: Device) -> Camera:
    try:
        modes = tuple(v4l2.modes(device.path))
        return Camera(device, modes, choose(Wish(device.path), list(modes)))
    except Exception as error:  # noqa: BLE001  (a failing probe is a finding)
        return Camera(device, (), None, one_line(error))


def _by_size(modes: tuple[Mode, ...]) -> dict[tuple[str, int, int], list[str]]:
    sizes: dict[tuple[str, int, int], list[str]] = {}
    for mode in modes:
        sizes.setdefault((mode.format, mode.width, mode.height), []).append(f"{float(mode.fps):g}")
    return sizes


def _usual(camera: Camera) -> str | None:
    """The address for `--source` with the default mode; None: the camera cannot be used."""
    if camera.usual is not None:
        return _url(camera.device.path, camera.usual)
    return None if camera.problem else str(camera.device.path)


def _url(path: Path, mode: Mode) -> str:
    return f"{path},{mode}"
