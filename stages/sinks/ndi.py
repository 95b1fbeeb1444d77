"""NDI as a sink: `ndi:NAME` announces a sender of that name on the network. Without a name it is `warpfuse`."""

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.sinks.rgba import Rgba
from warpfuse.stages.sources.ndi import ndi_module
from warpfuse.stages.sources.schemes import name_of, scheme_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("ndi",)


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError where NDI is not installed, or the source is this sender."""
    ndi_module("sender", SinkError)
    if source is not None and scheme_of(source) == "ndi" and name_of(source) == _name(url):
        raise SinkError(f"{url} is the source as well. Name another sender.")


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "NdiSink":
    """Announce the sender. Raises SinkError."""
    return NdiSink(_name(url), info, size)


class NdiSink:
    """Sends frames to whoever watches; a file at its own rate. Frames are compressed by the library, in its threads."""

    def __init__(self, name: str, info: VideoInfo, size: tuple[int, int]) -> None:
        sender, frames = ndi_module("sender", SinkError), ndi_module("video_frame", SinkError)
        self._playback, self._rgba = Playback(info), Rgba(size)
        picture = frames.VideoSendFrame()
        picture.set_resolution(*size)
        picture.set_frame_rate(info.fps)
        picture.set_fourcc(ndi_module("wrapper", SinkError).FourCC.RGBX)
        self._sender = sender.Sender(name, clock_video=False, clock_audio=False)
        self._sender.set_video_frame(picture)
        self._sender.open()
        self._sent, self._closed = 0, False

    @property
    def notes(self) -> list[str]:
        """The name on the network, and how many frames it sent."""
        return [f"ndi: {self._sender.name}: {self._sent} frames sent"]

    def write(self, frame: RawFrame) -> None:
        """Send a frame. Never waits for who watches."""
        self._playback.due(frame)
        self._sender.write_video_async(self._rgba(frame.rgb).ravel())
        self._sent += 1

    def close(self, complete: bool) -> None:
        """Announce it no more. A second call does nothing."""
        self._playback.close()
        if not self._closed:
            self._closed = True
            self._sender.close()


def _name(url: str) -> str:
    return name_of(url) or "warpfuse"
