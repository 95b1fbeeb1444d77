"""Cameras of this machine: `camera:0`, `camera:0,1280x720@30,mjpeg`, `/dev/video0`."""

import re
import threading
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import v4l2
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.live import LiveSource, info_of
from warpfuse.stages.sources.schemes import parse_rate
from warpfuse.stages.sources.session import Connect
from warpfuse.stages.sources.v4l2 import Device, Mode
from warpfuse.stages.sources.v4l2_capture import CODECS, CaptureSession
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("camera",)
FORMATS = {"mjpeg": "MJPG", "mjpg": "MJPG", **{name.lower(): name for name in CODECS}}
_SHAPE = re.compile(r"(?:(\d+)x(\d+))?(?:@([\d.]+(?:/\d+)?))?")
_EXAMPLE = "camera:0,1280x720@30,mjpeg"
_ENOUGH_FPS, _FASTEST = 24, 1000
_SHOWN = 6  # modes in an error
_USUAL = (1280, 720)  # without a wish: as large as this at most, for the networks run smaller anyway


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address asks for. None: whatever is best."""

    path: Path
    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    format: str | None = None

    @classmethod
    def parse(cls, url: str) -> "Wish":
        """Read `camera:N[,WxH][@FPS][,FORMAT]` or the same behind `/dev/videoN`. Raises SourceError."""
        named, *parts = url.removeprefix("camera:").split(",")
        if not (named.isdigit() or named.startswith("/dev/")):
            raise SourceError(
                f"{url}: a camera has a number. Write {_EXAMPLE}; `warpfuse doctor --cameras` lists them."
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
        return cls(Path(f"/dev/video{int(named)}" if named.isdigit() else named), size, fps, form)


def choose(wish: Wish, modes: list[Mode]) -> Mode:
    """The mode that fits the wish. What it leaves open is chosen: 24 frames a second or more, at most 1280x720, then as
    large as can be, then uncompressed rather than MJPEG, then as fast as can be. Raises SourceError."""
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
        what = f"{wish.path}: the camera does not give what was asked for. Nearest are: {offered}."
        raise SourceError(f"{what} All of them: warpfuse doctor --cameras")

    def worth(mode: Mode) -> tuple[bool, bool, int, bool, Fraction]:
        moderate = wish.size is not None or (mode.width <= _USUAL[0] and mode.height <= _USUAL[1])
        area = mode.width * mode.height * (1 if moderate else -1)
        return mode.fps >= _ENOUGH_FPS, moderate, area, CODECS[mode.format][0] == "rawvideo", mode.fps

    return max(fitting, key=worth)


def _distance(wish: Wish, mode: Mode) -> tuple[bool, int, Fraction]:
    """How far a mode is from the wish: another format, then the size, then the rate."""
    width, height = wish.size or _USUAL
    rate = abs(mode.fps - wish.fps) if wish.fps is not None else -mode.fps
    return wish.format not in (None, mode.format), abs(mode.width - width) + abs(mode.height - height), rate


def find(device: Device, devices: list[Device]) -> Path | None:
    """Where a camera is that may have been unplugged meanwhile: where it was, on the same plug, or by its name."""
    cameras = [d for d in devices if d.captures and d.card == device.card]
    cameras.sort(key=lambda d: (d.bus != device.bus, d.path != device.path))
    return cameras[0].path if cameras else None


def probe(url: str) -> VideoInfo:
    """What the camera gives: opens it and takes one picture. Raises SourceError, SourceLost."""
    return info_of(url, _connecting(url, Patience()))


def open(
    url: str,
    size: tuple[int, int] | None,
    frames: int | None,
    patience: Patience = Patience(),  # noqa: B008  (frozen)
    stop: threading.Event | None = None,
) -> LiveSource:
    """Open the camera. Raises SourceError for what the address asks and it does not give, SourceLost, Stopped."""
    return LiveSource(url, _connecting(url, patience), size, frames, patience=patience, stop=stop)


def _connecting(url: str, patience: Patience) -> Connect:
    wish = Wish.parse(url)
    try:
        device = v4l2.query(wish.path)
        mode = choose(wish, v4l2.modes(wish.path)) if device.captures else None
    except FileNotFoundError:
        there = ", ".join(str(d.path) for d in v4l2.devices() if d.captures) or "none"
        raise SourceError(f"{url}: there is no {wish.path}. Cameras: {there}. Plug one in, or try pattern:") from None
    except PermissionError:
        raise SourceError(f"{wish.path}: no permission. Try: sudo usermod -aG video $USER, and log in anew.") from None
    except OSError as error:
        raise SourceError(f"{wish.path}: is no camera that answers ({error.strerror}).") from None
    if mode is None:
        raise SourceError(f"{wish.path}: '{device.card}' is a video device but gives no pictures. Take another number.")

    def connect() -> CaptureSession:
        path = find(device, v4l2.devices())
        if path is None:
            raise Broken(Fault.NETWORK, f"'{device.card}' is not plugged in", "Plug it in again.")
        return CaptureSession(path, mode, patience.silence)

    return connect
