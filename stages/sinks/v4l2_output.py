"""A V4L2 output device (v4l2loopback), driven by ioctls. Other programs see it as a camera."""

import ctypes
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.bt709 import ToBt709
from warpfuse.stages.sinks.camera_address import PixelFormat
from warpfuse.stages.sources.v4l2 import ioctl, open_device

HOW_TO_MAKE_ONE = (
    "Make one: sudo apt install v4l2loopback-dkms && "
    "sudo modprobe v4l2loopback video_nr=10 card_label=warpfuse exclusive_caps=1"
)

_OUTPUT = 2  # V4L2_BUF_TYPE_VIDEO_OUTPUT
_CAN_OUTPUT = 0x2  # V4L2_CAP_VIDEO_OUTPUT
_HAS_DEVICE_CAPS = 0x80000000
_PROGRESSIVE, _PRIVATE, _TIME_PER_FRAME = 1, 0xFEEDCAFE, 0x1000
_REC709, _ENCODING_709, _LIMITED, _TRANSFER_709 = 3, 2, 2, 1
_FOURCC = {"nv12": b"NV12", "yuyv": b"YUYV"}
_FFMPEG = {"nv12": "nv12", "yuyv": "yuyv422"}
_QUERYCAP_BYTES, _FORMAT_BYTES, _PARM_BYTES = 104, 208, 204


def _ioctl(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("V") << 8 | number


_QUERYCAP = _ioctl(2, 0, _QUERYCAP_BYTES)
_S_FMT = _ioctl(3, 5, _FORMAT_BYTES)
_S_PARM = _ioctl(3, 22, _PARM_BYTES)
_STREAMON, _STREAMOFF = _ioctl(1, 18, 4), _ioctl(1, 19, 4)


@dataclass(frozen=True, slots=True)
class Capability:
    """A device's answer to VIDIOC_QUERYCAP. output: it takes pictures."""

    driver: str
    card: str
    output: bool


def capability(path: str) -> Capability:
    """Query a device. Raises OSError: missing, no permission, no V4L2 device."""
    handle = open_device(Path(path))
    try:
        held = bytearray(_QUERYCAP_BYTES)
        ioctl(handle, _QUERYCAP, held)
    finally:
        os.close(handle)
    driver, card, _bus, _version, caps, device_caps = struct.unpack_from("16s32s32sIII", held)
    caps = device_caps if caps & _HAS_DEVICE_CAPS else caps
    return Capability(_text(driver), _text(card), bool(caps & _CAN_OUTPUT))


def find_output() -> str:
    """The path of the first device that takes pictures. Raises SinkError with the commands that make one."""
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    refused = []
    for path in devices:
        try:
            if capability(str(path)).output:
                return str(path)
        except PermissionError:
            refused.append(str(path))
        except OSError:
            continue
    if refused:
        raise SinkError(f"virtualcam: no permission for {', '.join(refused)}. Join the group: sudo adduser $USER video")
    raise SinkError(f"virtualcam: this machine has no virtual camera. {HOW_TO_MAKE_ONE}")


def require_output(path: str) -> None:
    """Raise SinkError, with the remedy, unless `path` is a device that takes pictures."""
    try:
        found = capability(path)
    except FileNotFoundError:
        raise SinkError(f"{path}: there is no such device. {HOW_TO_MAKE_ONE}") from None
    except PermissionError:
        raise SinkError(f"{path}: no permission. Join the group, then log in anew: sudo adduser $USER video") from None
    except OSError as error:
        raise SinkError(f"{path}: not a video device ({error.strerror}). {HOW_TO_MAKE_ONE}") from None
    if not found.output:
        raise SinkError(f"{path}: '{found.card}' ({found.driver}) is a camera and takes no pictures. {HOW_TO_MAKE_ONE}")


class V4l2Output:
    """An open, streaming device. A context manager. One thread at a time.

    Note: STREAMON. Without it, v4l2loopback with exclusive_caps=1 does not become a camera for other programs. After
    this program has exited, it would be neither a camera nor an output until the module is loaded again.
    """

    def __init__(self, path: str, size: tuple[int, int], fps: Fraction, pixel_format: PixelFormat = "nv12") -> None:
        require_output(path)
        self._path, self._format = path, pixel_format
        self._convert = ToBt709(_FFMPEG[pixel_format])
        self._handle = os.open(path, os.O_RDWR)
        try:
            self._strides = self._agree(size)
            fps = fps.limit_denominator(1001)
            parm = bytearray(_PARM_BYTES)
            struct.pack_into("I4I", parm, 0, _OUTPUT, _TIME_PER_FRAME, 0, fps.denominator, fps.numerator)
            ioctl(self._handle, _S_PARM, parm)
            ioctl(self._handle, _STREAMON, struct.pack("i", _OUTPUT))
        except OSError as error:
            os.close(self._handle)
            why = "another program writes to it" if error.errno == 16 else error.strerror
            raise SinkError(f"{path}: cannot be opened as a camera: {why}.") from None
        except BaseException:
            os.close(self._handle)
            raise

    def _agree(self, size: tuple[int, int]) -> int:
        """Set size and format. Returns the device's bytes a row. Raises SinkError for another size or format."""
        width, height = size
        row = width if self._format == "nv12" else 2 * width
        total = row * height * 3 // 2 if self._format == "nv12" else row * height
        code = int.from_bytes(_FOURCC[self._format], "little")
        held = bytearray(_FORMAT_BYTES)
        struct.pack_into("I", held, 0, _OUTPUT)
        fields = (width, height, code, _PROGRESSIVE, row, total, _REC709, _PRIVATE, 0, _ENCODING_709, _LIMITED)
        at = 8 if ctypes.sizeof(ctypes.c_void_p) == 8 else 4
        struct.pack_into("12I", held, at, *fields, _TRANSFER_709)
        ioctl(self._handle, _S_FMT, held)
        got = struct.unpack_from("12I", held, at)
        if got[:3] != (width, height, code):
            name = got[2].to_bytes(4, "little").decode(errors="replace")
            raise SinkError(
                f"{self._path}: takes {got[0]}x{got[1]} {name}, not {width}x{height} {self._format.upper()}. "
                f"Run with --size {got[0]}x{got[1]}, or end the program that reads it and try again."
            )
        return int(got[4]) or row

    def send(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Show a picture, uint8 RGB [h, w, 3]. Raises OSError when the device is gone."""
        os.write(self._handle, packed(self._convert(rgb), self._strides))

    def close(self) -> None:
        """End streaming and close the device. A second call does nothing."""
        if self._handle >= 0:
            with suppress(OSError):  # the device may be gone already
                ioctl(self._handle, _STREAMOFF, struct.pack("i", _OUTPUT))
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> "V4l2Output":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def packed(frame: VideoFrame, stride: int) -> bytes:
    """The planes of an NV12 or YUYV frame one after the other, with `stride` bytes a row."""
    row = frame.width * (2 if frame.format.name == "yuyv422" else 1)
    planes = []
    for plane in frame.planes:
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, :row]
        if stride != row:
            lines = np.pad(lines, ((0, 0), (0, stride - row)))
        planes.append(lines.tobytes())
    return b"".join(planes)


def _text(held: bytes) -> str:
    return held.split(b"\0", 1)[0].decode(errors="replace")
