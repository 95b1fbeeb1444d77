"""Listing cameras and their modes by ioctls of Video4Linux (linux/videodev2.h)."""

import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
_CAN_CAPTURE, _CAN_STREAM, _TELLS_DEVICE = 0x1, 0x04000000, 0x80000000
_DISCRETE = 1
_USUAL_SIZES = ((640, 480), (1280, 720), (1920, 1080))  # sizes tried with a camera that has a continuous range
_MOST = 64  # most entries of a list, for drivers that never report its end


def ioctl_number(number: int, size: int, *, reads: bool, writes: bool) -> int:
    """The request code of an ioctl of group 'V' with an argument of `size` bytes. reads, writes: from the caller's
    side."""
    return (reads << 31) | (writes << 30) | (size << 16) | (ord("V") << 8) | number


_QUERYCAP = ioctl_number(0, 104, reads=True, writes=False)
_ENUM_FMT = ioctl_number(2, 64, reads=True, writes=True)
_ENUM_FRAMESIZES = ioctl_number(74, 44, reads=True, writes=True)
_ENUM_FRAMEINTERVALS = ioctl_number(75, 52, reads=True, writes=True)


@dataclass(frozen=True, slots=True)
class Device:
    """A video device. card (its name) and bus (its port) identify it when it is plugged in again."""

    path: Path
    driver: str
    card: str
    bus: str
    captures: bool


@dataclass(frozen=True, slots=True)
class Mode:
    """A camera's mode: format (four characters, as "YUYV"), size (px) and rate (frames a second)."""

    format: str
    width: int
    height: int
    fps: Fraction

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{float(self.fps):g},{self.format.lower()}"


def devices(root: Path = Path("/sys/class/video4linux"), dev: Path = Path("/dev")) -> list[Device]:
    """All video devices by number, without devices that are gone or not permitted."""
    found = []
    for name in sorted((p.name for p in root.glob("video*")), key=lambda name: (len(name), name)):
        try:
            found.append(query(dev / name))
        except OSError:
            continue
    return found


def links(path: Path, root: Path = Path("/dev/v4l")) -> list[Path]:
    """The persistent links to a device: by its id, and by its port."""
    return [link for kind in ("by-id", "by-path") for link in sorted((root / kind).glob("*")) if link.resolve() == path]


def query(path: Path) -> Device:
    """Query a device. Raises OSError."""
    with opened(path) as fd:
        answer = _ask(fd, _QUERYCAP, bytearray(104))
    driver, card, bus, _, of_driver, of_device = struct.unpack_from("<16s32s32sIII", answer)
    able = of_device if of_driver & _TELLS_DEVICE else of_driver
    captures = bool(able & _CAN_CAPTURE and able & _CAN_STREAM)
    return Device(path, _text(driver), _text(card), _text(bus), captures)


def modes(path: Path) -> list[Mode]:
    """The modes of a camera, in its own order. Raises OSError."""
    with opened(path) as fd:
        return [
            Mode(name, *size, fps)
            for name in _formats(fd)
            for size in _sizes(fd, name)
            for fps in _rates(fd, name, size)
        ]


def open_device(path: Path) -> int:
    """A descriptor of the device; who asks it never waits. Raises OSError."""
    if sys.platform == "win32":
        raise NotImplementedError
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Within the block, a descriptor of the device. Queries do not disturb another program that uses the camera."""
    fd = open_device(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _formats(fd: int) -> Iterator[str]:
    for entry in _listed(fd, _ENUM_FMT, lambda index: struct.pack("<II56x", index, CAPTURE)):
        yield entry[44:48].decode("ascii", "replace")


def _sizes(fd: int, form: str) -> Iterator[tuple[int, int]]:
    code = form.encode("ascii", "replace")
    for entry in _listed(fd, _ENUM_FRAMESIZES, lambda index: struct.pack("<I4s36x", index, code)):
        kind, *bounds = struct.unpack_from("<7I", entry, 8)
        if kind == _DISCRETE:
            yield bounds[0], bounds[1]
            continue
        least_w, most_w, step_w, least_h, most_h, step_h = bounds
        for width, height in dict.fromkeys([*_USUAL_SIZES, (most_w, most_h)]):
            fits = least_w <= width <= most_w and least_h <= height <= most_h
            if fits and not (width - least_w) % max(1, step_w) and not (height - least_h) % max(1, step_h):
                yield width, height
        return


def _rates(fd: int, form: str, size: tuple[int, int]) -> Iterator[Fraction]:
    code = form.encode("ascii", "replace")
    found = False
    for entry in _listed(fd, _ENUM_FRAMEINTERVALS, lambda index: struct.pack("<I4sII36x", index, code, *size)):
        kind, numerator, denominator = struct.unpack_from("<3I", entry, 16)  # for a range, its shortest interval
        if numerator and denominator:
            found = True
            yield Fraction(denominator, numerator)
        if kind != _DISCRETE:
            break
    if not found:
        yield Fraction(30)  # for a driver that lists no rates; the real one is known when it is opened


def _listed(fd: int, request: int, make: Callable[[int], bytes]) -> Iterator[bytearray]:
    for index in range(_MOST):
        try:
            yield _ask(fd, request, bytearray(make(index)))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):  # end of the list; not supported by this driver
                return
            raise


def ioctl(fd: int, request: int, argument: "bytes | bytearray") -> None:
    """Call a device's ioctl. Raises OSError."""
    import fcntl  # imported here, since other systems lack it

    fcntl.ioctl(fd, request, argument)  # type: ignore[attr-defined, unused-ignore]


def _ask(fd: int, request: int, argument: bytearray) -> bytearray:
    ioctl(fd, request, argument)
    return argument


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace").strip()
