"""Capturing pictures from a Video4Linux camera, in memory shared with the driver.

FFmpeg's device is not used: it waits for a picture without limit and cannot be interrupted, so a camera that hangs
would block its thread for ever.
"""

import contextlib
import errno
import mmap
import os
import select
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.session import Nature, ReceivedPicture
from warpfuse.stages.sources.v4l2 import CAPTURE, Mode, ioctl, ioctl_number, open_device

CODECS = {  # V4L2's format -> FFmpeg's codec, and for raw pictures FFmpeg's pixel format and bits a pixel
    "YUYV": ("rawvideo", "yuyv422", 16),
    "UYVY": ("rawvideo", "uyvy422", 16),
    "NV12": ("rawvideo", "nv12", 12),
    "YU12": ("rawvideo", "yuv420p", 12),
    "RGB3": ("rawvideo", "rgb24", 24),
    "BGR3": ("rawvideo", "bgr24", 24),
    "GREY": ("rawvideo", "gray", 8),
    "MJPG": ("mjpeg", "", 0),
    "JPEG": ("mjpeg", "", 0),
}

_S_FMT = ioctl_number(5, 208, reads=True, writes=True)
_REQBUFS = ioctl_number(8, 20, reads=True, writes=True)
_QUERYBUF = ioctl_number(9, 88, reads=True, writes=True)
_QBUF = ioctl_number(15, 88, reads=True, writes=True)
_DQBUF = ioctl_number(17, 88, reads=True, writes=True)
_STREAMON = ioctl_number(18, 4, reads=False, writes=True)
_STREAMOFF = ioctl_number(19, 4, reads=False, writes=True)
_S_PARM = ioctl_number(22, 204, reads=True, writes=True)
_MMAP, _ANY_FIELD = 1, 0
_REC709, _JPEG, _ENCODED_709, _FULL_RANGE = 3, 7, 2, 1  # V4L2's numbers
_BT709, _BT601 = 1, 5  # FFmpeg's
_DAMAGED, _CLOCK_MASK, _MONOTONIC = 0x40, 0xE000, 0x2000
_BUFFERS = 4


Decode = Callable[[bytes], list[VideoFrame]]


class CaptureSession:
    """The session of a camera. It breaks when the camera is unplugged or gives no picture for `silence_s`."""

    def __init__(self, path: Path, mode: Mode, silence_s: float) -> None:
        self._silence_ms = round(silence_s * 1000)
        self._closing = threading.Lock()  # keeps `interrupt` from writing to a descriptor that was closed and reused
        self._maps: list[mmap.mmap] = []
        self._wake, self._waker = _pipe()
        self._fd = -1
        try:
            self._fd = open_device(path)
            self._decoder = self._agree(mode)
            self.nature = Nature(self._rate(mode.fps))
            self._share()
            self._control(_STREAMON, bytearray(struct.pack("<i", CAPTURE)))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _explained(error, path) from None
            raise

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Yield pictures as the driver fills buffers, with the driver's times; None for a damaged picture."""
        if sys.platform == "win32":
            raise NotImplementedError
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._silence_ms))
            if not ready or self._wake in ready:
                raise Broken(Fault.SILENT, "the camera gives no pictures", _PLUG)
            try:
                taken = self._take()
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    if ready[self._fd] & (select.POLLERR | select.POLLHUP):
                        raise _explained(OSError(errno.ENODEV, ""), None) from None
                    continue
                raise _explained(error, None) from None
            yield self._decoded(*taken) if taken is not None else None

    def interrupt(self) -> None:
        """Wake `pictures`, which then raises Broken."""
        with self._closing, contextlib.suppress(OSError):  # the pipe is full, and so readable; or closed already
            os.write(self._waker, b"x")

    def close(self) -> None:
        """Stop the camera and free its memory."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._control(_STREAMOFF, bytearray(struct.pack("<i", CAPTURE)))
        for shared in self._maps:
            shared.close()
        self._maps = []
        with self._closing:
            for fd in (self._fd, self._wake, self._waker):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._wake = self._waker = -1

    def _agree(self, mode: Mode) -> Decode:
        """Set format and size. Returns a decoder. Raises Broken when the camera uses others instead."""
        form = bytearray(208)
        code = struct.unpack("<I", mode.format.encode())[0]
        struct.pack_into("<I4xIIII", form, 0, CAPTURE, mode.width, mode.height, code, _ANY_FIELD)
        self._control(_S_FMT, form)
        width, height, got, _, stride, _, space, _, _, matrix, levels = struct.unpack_from("<11I", form, 8)
        if (width, height, got) != (mode.width, mode.height, code):
            raise Broken(Fault.UNABLE, f"the camera was asked for {mode} and gives {width}x{height} instead", "")
        # A camera's pictures are sRGB coded with BT.601's matrix. Untagged HD pictures would be taken for BT.709.
        hd = matrix == _ENCODED_709 or (not matrix and space == _REC709)
        full = levels == _FULL_RANGE or (not levels and space == _JPEG)
        return _decoder(mode, stride, _BT709 if hd else _BT601, int(ColorRange.JPEG if full else ColorRange.MPEG))

    def _rate(self, fps: Fraction) -> Fraction:
        """Set the rate. Returns the rate that the camera uses."""
        parm = bytearray(204)
        struct.pack_into("<IIIII", parm, 0, CAPTURE, 0, 0, fps.denominator, fps.numerator)
        try:
            self._control(_S_PARM, parm)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return fps  # the driver cannot set rates
        numerator, denominator = struct.unpack_from("<II", parm, 12)
        return Fraction(denominator, numerator) if numerator and denominator else fps

    def _share(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        wanted = bytearray(struct.pack("<III8x", _BUFFERS, CAPTURE, _MMAP))
        self._control(_REQBUFS, wanted)
        for index in range(struct.unpack_from("<I", wanted)[0]):
            buffer = _buffer(index)
            self._control(_QUERYBUF, buffer)
            offset, length = struct.unpack_from("<I4xI", buffer, 64)
            rights = mmap.PROT_READ | mmap.PROT_WRITE
            self._maps.append(mmap.mmap(self._fd, length, mmap.MAP_SHARED, rights, offset=offset))
            self._control(_QBUF, _buffer(index))

    def _take(self) -> tuple[bytes, int | None] | None:
        """Bytes and time, ns, of the oldest filled buffer; None if it is damaged. The driver gets the buffer back."""
        buffer = _buffer(0)
        self._control(_DQBUF, buffer)
        index, _, used, flags = struct.unpack_from("<IIII", buffer)
        seconds, micros = struct.unpack_from("<qq", buffer, 24)
        data = bytes(self._maps[index][:used]) if used and not flags & _DAMAGED else b""
        self._control(_QBUF, _buffer(index))
        time_ns = seconds * 10**9 + micros * 1000 if flags & _CLOCK_MASK == _MONOTONIC else None
        return (data, time_ns) if data else None

    def _decoded(self, data: bytes, time_ns: int | None) -> ReceivedPicture | None:
        try:
            frames = self._decoder(data)
        except Exception:  # noqa: BLE001  (a truncated picture; PyAV raises more than FFmpeg's errors)
            return None
        return ReceivedPicture(frames[-1], time_ns) if frames else None

    def _control(self, request: int, argument: bytearray) -> None:
        ioctl(self._fd, request, argument)


_GROUP = "Try: sudo usermod -aG video $USER, and log in anew."
_PLUG = "Check its cable, and that no other program uses it."


def _explained(error: OSError, path: Path | None) -> Broken:
    """The `Broken` for an error of the camera."""
    if error.errno in (errno.ENODEV, errno.ENOENT, errno.ENXIO):
        return Broken(Fault.NETWORK, "the camera is not plugged in", _PLUG)
    if error.errno == errno.EBUSY:
        return Broken(Fault.NETWORK, "another program uses the camera", f"Who: fuser -v {path}" if path else _PLUG)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Broken(Fault.UNABLE, "no permission to use the camera", _GROUP)
    return Broken(Fault.NETWORK, (os.strerror(error.errno) if error.errno else str(error)).lower(), _PLUG)


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe, of which none waits."""
    if sys.platform != "linux":
        raise NotImplementedError
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def _buffer(index: int) -> bytearray:
    """A struct v4l2_buffer for the buffer with this index."""
    buffer = bytearray(88)
    struct.pack_into("<II", buffer, 0, index, CAPTURE)
    struct.pack_into("<I", buffer, 60, _MMAP)
    return buffer


def _decoder(mode: Mode, stride: int, matrix: int, levels: int) -> Decode:
    """Make a function from the bytes of a picture to decoded frames.

    stride          bytes a row of raw pictures; 0: unknown
    matrix, levels  FFmpeg's numbers of their colour space and range
    """
    name, pixels, bits = CODECS[mode.format]
    context: Any = av.CodecContext.create(name, "r")
    context.thread_count = 1
    packed = mode.width * bits // 8
    if name == "rawvideo":
        context.width, context.height, context.pix_fmt = mode.width, mode.height, pixels

    def decode(data: bytes) -> list[VideoFrame]:
        if bits in (8, 16, 24) and stride > packed:  # rows are padded
            rows = range(0, stride * mode.height, stride)
            data = b"".join(data[row : row + packed] for row in rows)
        frames = list(context.decode(Packet(data)))
        if pixels.startswith(("yu", "uy", "nv")):
            for frame in frames:
                frame.colorspace, frame.color_range = matrix, levels
        return frames

    return decode
