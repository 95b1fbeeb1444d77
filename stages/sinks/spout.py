"""Spout as a sink, on Windows: `spout:NAME` shares pictures with other programs of this machine.

Written after SpoutGL's documentation and tested with a stand-in; it has not been tried on Windows.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.sinks.rgba import Rgba
from warpfuse.stages.sources.schemes import name_of
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("spout",)


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError where Spout is not installed."""
    _module("SpoutGL")


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "SpoutSink":
    """Open the sink. Raises SinkError."""
    return SpoutSink(name_of(url) or "warpfuse", info, size)


class SpoutSink:
    """Shares frames; a file at its own rate. OpenGL belongs to a thread, so it is opened by the first frame."""

    def __init__(self, name: str, info: VideoInfo, size: tuple[int, int]) -> None:
        self.notes: list[str] = []
        self._form = _module("SpoutGL.enums").GL_RGBA
        self._name, self._size = name, size
        self._playback, self._rgba = Playback(info), Rgba(size)
        self._sender: Any = None

    def write(self, frame: RawFrame) -> None:
        """Share a frame. Raises SinkLost when the card does not take it."""
        self._playback.due(frame)
        if self._sender is None:
            self._sender = _module("SpoutGL").SpoutSender()
            self._sender.setSenderName(self._name)
        if not self._sender.sendImage(self._rgba(frame.rgb), *self._size, self._form, False, 0):
            raise SinkLost(f"spout: the card takes no picture as {self._name!r}. Update its driver")

    def close(self, complete: bool) -> None:
        """Share no more. A second call does nothing."""
        self._playback.close()
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.releaseSender()


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise SinkError("spout: needs Windows and a package: pip install 'warpfuse[spout]'") from None
