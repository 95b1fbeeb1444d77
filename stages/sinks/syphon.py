"""Syphon as a sink, on macOS: `syphon:NAME` shares pictures with other programs of this machine.

Written after syphon-python's source and tested with a stand-in; it has not been tried on macOS.
"""

from importlib import import_module
from types import ModuleType

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.sinks.rgba import Rgba
from warpfuse.stages.sources.schemes import name_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("syphon",)


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError where Syphon is not installed."""
    _module("syphon")


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "SyphonSink":
    """Open the sink. Raises SinkError."""
    return SyphonSink(name_of(url) or "warpfuse", info, size)


class SyphonSink:
    """Shares frames by Metal; a file at its own rate."""

    def __init__(self, name: str, info: VideoInfo, size: tuple[int, int]) -> None:
        self.notes: list[str] = []
        self._playback, self._rgba = Playback(info), Rgba(size)
        self._copy = _module("syphon.utils.numpy").copy_image_to_mtl_texture
        self._server = _module("syphon").SyphonMetalServer(name)
        self._texture = _module("syphon.utils.raw").create_mtl_texture(self._server.device, *size)
        self._closed = False

    def write(self, frame: RawFrame) -> None:
        """Share a frame."""
        self._playback.due(frame)
        self._copy(self._rgba(frame.rgb), self._texture)
        self._server.publish_frame_texture(self._texture)

    def close(self, complete: bool) -> None:
        """Share no more. A second call does nothing."""
        self._playback.close()
        if not self._closed:
            self._closed = True
            self._server.stop()


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise SinkError("syphon: needs macOS and a package: pip install 'warpfuse[syphon]'") from None
