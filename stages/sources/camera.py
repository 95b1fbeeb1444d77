"""Cameras of this machine: `camera:0`, `camera:C920,1280x720@30,mjpeg`, `/dev/video0`, `/dev/v4l/by-id/...`.

Linux: Video4Linux. Windows and macOS: FFmpeg's input devices (`input_devices.py`), by number or name; of those the
format cannot be chosen."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import v4l2
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.input_devices import DeviceKind, DeviceSession, device_kind, find_camera
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.schemes import parse_rate
from warpfuse.stages.sources.session import Connect, Session
from warpfuse.stages.sources.v4l2 import Device, Mode
from warpfuse.stages.sources.v4l2_capture import CODECS, CaptureSession

SCHEMES: tuple[str, ...] = ("camera",)
FORMATS = {"mjpeg": "MJPG", "mjpg": "MJPG", **{name.lower(): name for name in CODECS}}
_PREFIX = re.compile(r"^camera:", re.IGNORECASE)
_SHAPE = re.compile(r"(?:(\d+)x(\d+))?(?:@([\d.]+(?:/\d+)?))?")
_EXAMPLE = "camera:0,1280x720@30,mjpeg"
_ENOUGH_FPS, _FASTEST = 24, 1000
_SHOWN = 6  # modes listed in an error
_USUAL = (1280, 720)  # largest size chosen by default, since the networks run at smaller sizes


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address asks for. None: choose the best.

    camera  device file of the camera, or a part of its name; its number on systems without device files
    """

    camera: Path | str
    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    format: str | None = None

    @classmethod
    def parse(cls, url: str) -> "Wish":
        """Parse `camera:CAMERA[,WxH][@FPS][,FORMAT]`, or the same after `/dev/videoN`. Raises SourceError.

        CAMERA is a number, a device file or a part of a name.
        """
        named, *parts = (part.strip() for part in _PREFIX.sub("", url, count=1).split(","))
        if not named:
            raise SourceError(
                f"{url}: a camera has a number or a name. Write {_EXAMPLE}; `warpfuse doctor --cameras` lists them."
            )
        size, fps, form = None, None, None
        for part in parts:
            shape = _SHAPE.fullmatch(part)
            if shape is not None and part:
                size = (int(shape[1]), int(shape[2])) if shape[1] else size
                fps = parse_rate(url, shape[3], _FASTEST) if shape[3] else fps
            elif part.lower() in FORMATS:
                form = FORMATS[part.lower()]
            else:
                near = get_close_matches(part.lower(), FORMATS, 1)
                hint = f"Did you mean '{near[0]}'?" if near else f"Write {_EXAMPLE}."
                raise SourceError(f"{url}: '{part}' is neither a size, a rate nor a format. {hint}")
        if named.isdecimal() and device_kind() is None:
            named = f"/dev/video{int(named)}"
        return cls(Path(named) if named.startswith("/") else named, size, fps, form)


def choose(wish: Wish, modes: list[Mode]) -> Mode:
    """Choose a mode that has what `wish` asks for. Raises SourceError when there is none.

    Among these it prefers, in this order: 24 frames a second or more, at most 1280x720, the largest size, uncompressed
    to MJPEG, the highest rate.
    """
    usable = [mode for mode in modes if mode.format in CODECS]
    fitting = [
        mode
        for mode in usable
        if wish.size in (None, (mode.width, mode.height))
        and wish.format in (None, mode.format)
        and (wish.fps is None or abs(mode.fps - wish.fps) < Fraction(1, 20))
    ]
    if not fitting:
        near = sorted(usable, key=lambda mode: _distance(wish, mode))[:_SHOWN]
        offered = ", ".join(dict.fromkeys(map(str, near))) or "nothing that can be decoded"
        what = f"{wish.camera}: the camera does not give what was asked for. Nearest are: {offered}."
        raise SourceError(f"{what} All of them: warpfuse doctor --cameras")

    def worth(mode: Mode) -> tuple[bool, bool, int, bool, Fraction]:
        moderate = wish.size is not None or (mode.width <= _USUAL[0] and mode.height <= _USUAL[1])
        area = mode.width * mode.height * (1 if moderate else -1)
        return mode.fps >= _ENOUGH_FPS, moderate, area, CODECS[mode.format][0] == "rawvideo", mode.fps

    return max(fitting, key=worth)


def _distance(wish: Wish, mode: Mode) -> tuple[bool, int, Fraction]:
    """Sort key for the difference of a mode from the wish: by format, then size, then rate."""
    width, height = wish.size or _USUAL
    rate = abs(mode.fps - wish.fps) if wish.fps is not None else -mode.fps
    return wish.format not in (None, mode.format), abs(mode.width - width) + abs(mode.height - height), rate


def locate(url: str, camera: Path | str, devices: list[Device]) -> Path:
    """The device file of a camera. camera: its path, or a part of its name.

    Raises SourceError when the name fits no camera or several.
    """
    if isinstance(camera, Path):
        return camera
    # A camera may have several devices. The first one stands for it.
    each = {(d.card, d.bus): d for d in reversed(devices) if d.captures}
    cameras = [*reversed(each.values())]
    exact = [d for d in cameras if d.card.lower() == camera.lower()]
    named = exact or [d for d in cameras if camera.lower() in d.card.lower()]
    if len(named) == 1:
        return named[0].path
    listed = ", ".join(f"{d.path} '{d.card}' ({d.bus})" for d in named or cameras) or "none"
    if not named:
        raise SourceError(
            f"{url}: no camera has a name with '{camera}' in it. Cameras: {listed}. Write {_EXAMPLE}; "
            "`warpfuse doctor --cameras` lists what they give."
        )
    raise SourceError(
        f"{url}: the names of {len(named)} cameras have '{camera}' in them: {listed}. Write more of the name, the "
        "device, or its link in /dev/v4l/by-id or, for equal ones, /dev/v4l/by-path."
    )


def find(device: Device, devices: list[Device]) -> Path | None:
    """The present device file of a camera that may have been plugged in again; None: it is missing.

    Cameras of the same name are preferred in this order: the same port, the same path, any.
    """
    cameras = [d for d in devices if d.captures and d.card == device.card]
    cameras.sort(key=lambda d: (d.bus != device.bus, d.path != device.path))
    return cameras[0].path if cameras else None


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    kind = device_kind()
    return _video4linux(url, patience) if kind is None else _elsewhere(url, patience, kind)


def _elsewhere(url: str, patience: Patience, kind: DeviceKind) -> Connect:
    wish = Wish.parse(url)
    if wish.format is not None:
        raise SourceError(f"{url}: FFmpeg's {kind.format} takes a size and a rate, no format. Leave the format out.")
    camera = find_camera(url, str(wish.camera), kind)

    def connect() -> Session:
        return DeviceSession(kind, camera, wish.size, wish.fps, patience.silence)

    return connect


def _video4linux(url: str, patience: Patience) -> Connect:
    wish = Wish.parse(url)
    path = locate(url, wish.camera, v4l2.devices())
    try:
        device = v4l2.query(path.resolve())  # a link may later belong to another camera
        mode = choose(wish, v4l2.modes(path)) if device.captures else None
    except FileNotFoundError:
        there = ", ".join(str(d.path) for d in v4l2.devices() if d.captures) or "none"
        raise SourceError(f"{url}: there is no {path}. Cameras: {there}. Plug one in, or try pattern:") from None
    except PermissionError:
        raise SourceError(f"{path}: no permission. Try: sudo usermod -aG video $USER, and log in anew.") from None
    except OSError as error:
        raise SourceError(f"{path}: is no camera that answers ({error.strerror}).") from None
    if mode is None:
        raise SourceError(f"{path}: '{device.card}' is a video device but gives no pictures. Take another number.")

    def connect() -> CaptureSession:
        path = find(device, v4l2.devices())
        if path is None:
            raise Broken(Fault.NETWORK, f"'{device.card}' is not plugged in", "Plug it in again.")
        return CaptureSession(path, mode, patience.silence)

    return connect


probe, open = live_source(_connecting)
