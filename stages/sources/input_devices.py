"""Cameras of Windows and macOS, by the input devices of FFmpeg: DirectShow and AVFoundation.

Written after FFmpeg's documentation (ffmpeg-devices: dshow, avfoundation). A stand-in for them is tested; the devices
themselves have not been tried.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
from av.container import InputContainer

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.container import LENIENT, Decoder, picture_streams
from warpfuse.stages.sources.faults import Broken, Fault, foreign
from warpfuse.stages.sources.session import Nature, ReceivedPicture, plausible_rate

_NON_BLOCK = 0x0004  # AVFMT_FLAG_NONBLOCK: a device that is read without it waits for its camera without end
_BETWEEN_S = 0.002  # two looks at a camera that has no picture yet
_USUAL = Fraction(30)  # AVFoundation's own default, 30000/1001, is refused by cameras that give up to 30
_UNTAGGED, _BT601 = 2, 5  # FFmpeg's numbers
_SCREEN = "Capture screen"  # as AVFoundation lists screens, among the cameras
_REMEDY = (
    "Close other programs that use it, allow cameras in the privacy settings of the system, and leave out a size or "
    "rate that it does not give."
)


@dataclass(frozen=True, slots=True)
class InputDevice:
    """One camera. id: what FFmpeg opens; name: what people call it."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """An input device of FFmpeg.

    format   its name
    address  what is opened for the id of a camera: its picture, without sound
    listed   the cameras there are. Raises SourceError
    rate     frames a second that are asked for without a wish; None: whatever the camera is set to
    """

    format: str
    address: Callable[[str], str]
    listed: Callable[[], list[InputDevice]]
    rate: Fraction | None = None


def _listed(format: str) -> list[InputDevice]:
    try:
        from av.device import enumerate_input_devices
    except ImportError:
        raise SourceError("cameras cannot be listed by this PyAV. Take a newer one: pip install -U 'av>=18'") from None
    try:
        found = enumerate_input_devices(format)
    except (ValueError, OSError) as error:
        raise SourceError(f"cameras cannot be listed by FFmpeg's {format}: {error}.") from None
    cameras = [each for each in found if "video" in each.media_types]
    return [InputDevice(each.name, each.description) for each in cameras if not each.description.startswith(_SCREEN)]


DEVICE_KINDS = {
    "win32": DeviceKind("dshow", lambda id: f"video={id}", lambda: _listed("dshow")),
    "darwin": DeviceKind("avfoundation", lambda id: f"{id}:none", lambda: _listed("avfoundation"), _USUAL),
}
"""By `sys.platform`. Linux has none: its cameras are read by `v4l2_capture.py`."""


def device_kind() -> DeviceKind | None:
    """How cameras of this system are read; None: by Video4Linux."""
    return DEVICE_KINDS.get(sys.platform)


def find_camera(url: str, wished: str, kind: DeviceKind) -> InputDevice:
    """The camera that a number or a part of a name means. Raises SourceError when none does, or several do."""
    cameras = kind.listed()
    listed = ", ".join(f"{index} '{each.name}'" for index, each in enumerate(cameras)) or "none"
    if wished.isdecimal():
        if int(wished) < len(cameras):
            return cameras[int(wished)]
        raise SourceError(f"{url}: there is no camera {wished}. Cameras: {listed}. Plug one in, or try pattern:")
    exact = [each for each in cameras if wished.lower() in (each.name.lower(), each.id.lower())]
    named = exact or [each for each in cameras if wished.lower() in each.name.lower()]
    if len(named) == 1:
        return named[0]
    if named:
        raise SourceError(f"{url}: {len(named)} cameras have '{wished}' in their names. Give a number: {listed}.")
    raise SourceError(f"{url}: no camera has a name with '{wished}' in it. Cameras: {listed}.")


class DeviceSession:
    """A camera that streams, from when it is opened until it is closed, gone, or silent for `silence_s`.

    A device that waits is asked again and again: FFmpeg's own waiting ends for nobody."""

    def __init__(
        self,
        kind: DeviceKind,
        camera: InputDevice,
        size: tuple[int, int] | None,
        fps: Fraction | None,
        silence_s: float,
    ) -> None:
        self._silence_s, self._ended = silence_s, threading.Event()
        try:
            with foreign():
                self._container: InputContainer = av.open(
                    kind.address(camera.id),
                    format=kind.format,
                    container_options=device_options(
                        kind, size, fps
                    ),  # of the device: a decoder would believe the size
                    **LENIENT,
                )
        except (av.error.FFmpegError, OSError) as error:
            why = (error.strerror or type(error).__name__).lower()
            raise Broken(Fault.NETWORK, f"'{camera.name}' cannot be opened ({why})", _REMEDY) from None
        try:
            self._begin(size)
        except BaseException:
            self._container.close()
            raise

    def _begin(self, size: tuple[int, int] | None) -> None:
        streams = picture_streams(self._container)
        if not streams:
            raise Broken(Fault.FOREIGN, "the camera gives no picture that can be decoded", _REMEDY)
        self._stream = streams[0]
        got = self._stream.width, self._stream.height
        if size is not None and got != size:
            asked = f"{size[0]}x{size[1]}"
            raise Broken(Fault.UNABLE, f"the camera was asked for {asked} and gives {got[0]}x{got[1]} instead", "")
        self._stream.thread_type = "SLICE"
        self._decoder = Decoder(self._stream)
        self._container.flags |= _NON_BLOCK
        self.nature = Nature(plausible_rate(self._stream.average_rate, self._stream.base_rate))

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Pictures as they come, with the camera's times."""
        heard_s = time.monotonic()
        while not self._ended.is_set():
            try:
                packet = next(self._container.demux(self._stream))
            except BlockingIOError:
                if time.monotonic() - heard_s > self._silence_s:
                    raise Broken(Fault.SILENT, "the camera gives no pictures", _REMEDY) from None
                self._ended.wait(_BETWEEN_S)
                continue
            if packet.size == 0:  # the end, as FFmpeg tells it
                break
            heard_s = time.monotonic()
            with foreign():
                frames = list(self._decoder(packet))
            if not frames:
                yield None
            for frame in frames:
                if frame.colorspace == _UNTAGGED and not frame.format.is_rgb:
                    frame.colorspace = _BT601  # as cameras code; of many lines it would be taken for television's
                sent_ns = None if frame.pts is None else round(frame.pts * self._stream.time_base * 10**9)
                yield ReceivedPicture(frame, sent_ns)
        raise Broken(Fault.ENDED, "the camera has ended", _REMEDY)

    def interrupt(self) -> None:
        """End `pictures`."""
        self._ended.set()

    def close(self) -> None:
        """Give the camera back."""
        self._container.close()


def device_options(kind: DeviceKind, size: tuple[int, int] | None, fps: Fraction | None) -> dict[str, str]:
    """FFmpeg's options for what is wished of a camera."""
    rate = fps or kind.rate
    options = {"video_size": f"{size[0]}x{size[1]}"} if size is not None else {}
    return {**options, "framerate": str(rate)} if rate is not None else options
