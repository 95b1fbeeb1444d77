"""NDI as a source: `ndi:NAME`, by the name as it is announced (`STUDIO (camera 1)`), or what is in its brackets.

The library comes with cyndilib. Its `Receiver.receive` holds Python's lock while it waits, so pictures are taken from
its frame synchronizer instead, which never waits.
"""

import time
from collections.abc import Iterator
from importlib import import_module
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from warpfuse.engine.errors import BadInput, one_line
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.schemes import name_of
from warpfuse.stages.sources.session import Connect, Nature, ReceivedPicture, plausible_rate

SCHEMES: tuple[str, ...] = ("ndi",)
_POLL_S = 0.002
_LOOK_S = 0.2
_PIXEL = 4  # bytes: RGBX or RGBA


def ndi_module(part: str, refused: type[BadInput]) -> ModuleType:
    """A module of cyndilib. Raises `refused` where it is not installed, or its library cannot be loaded."""
    try:
        return import_module(f"cyndilib.{part}")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("cyndilib")
        why = "needs a package" if absent else f"its library cannot be loaded ({one_line(error)})"
        raise refused(f"ndi: {why}: pip install 'warpfuse[ndi]'") from None


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    ndi_module("receiver", SourceError)
    return lambda: NdiSession(name_of(url), patience.silence)


probe, open = live_source(_connecting)


class NdiSession:
    """One connection to a sender. It breaks when the sender is silent for `silence_s`."""

    def __init__(self, name: str, silence_s: float) -> None:
        """Find the sender and wait for its first picture, for so long each."""
        receiver, wrapper = ndi_module("receiver", SourceError), ndi_module("wrapper", SourceError)
        self._silence_s, self._ended, self._last_s = silence_s, Event(), 0.0
        self._finder = ndi_module("finder", SourceError).Finder()
        self._finder.open()
        try:
            sender = self._found(name)
            form, whole = wrapper.RecvColorFormat.RGBX_RGBA, wrapper.RecvBandwidth.highest
            self._receiver = receiver.Receiver(color_format=form, bandwidth=whole)
            self._picture = ndi_module("video_frame", SourceError).VideoFrameSync()
            self._receiver.frame_sync.set_video_frame(self._picture)
            self._receiver.set_source(sender)
            self._first: ReceivedPicture | None = next(self._incoming())
        except BaseException:
            self._finder.close()
            raise
        self.nature = Nature(plausible_rate(self._picture.get_frame_rate()))

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Yield each picture, with the sender's time of it."""
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._incoming()

    def interrupt(self) -> None:
        """End `pictures`."""
        self._ended.set()

    def close(self) -> None:
        """Disconnect."""
        self._receiver.disconnect()
        self._finder.close()

    def _found(self, name: str) -> Any:
        """The sender of this name; without a name the first there is."""
        until_s = time.monotonic() + self._silence_s
        while True:
            known = self._finder.update_sources()
            for sender in self._finder.iter_sources():
                if not name or name in (sender.name, sender.stream_name):
                    return sender
            if time.monotonic() > until_s:
                there = ", ".join(known) or "none"
                raise Broken(Fault.NETWORK, f"no sender of this name is announced; there are: {there}")
            self._finder.wait_for_sources(_LOOK_S)

    def _incoming(self) -> Iterator[ReceivedPicture]:
        heard_s = time.monotonic()
        while not self._ended.wait(_POLL_S):
            self._receiver.frame_sync.capture_video()
            sent_s = self._picture.get_timestamp_posix()
            if min(self._picture.get_resolution()) > 0 and sent_s != self._last_s:
                self._last_s, heard_s = sent_s, time.monotonic()
                yield ReceivedPicture(_shown(self._picture), round(sent_s * 1e9))
            elif time.monotonic() - heard_s > self._silence_s:
                raise Broken(Fault.SILENT, "it sends no pictures")
        raise Broken(Fault.ENDED, "it is no longer received", "")


def _shown(picture: Any) -> VideoFrame:
    (width, height), stride = picture.get_resolution(), picture.get_line_stride()
    lines = picture.get_array()[: height * stride].reshape(height, stride)
    rgbx = lines[:, : width * _PIXEL].reshape(height, width, _PIXEL)
    return VideoFrame.from_ndarray(np.ascontiguousarray(rgbx[..., :3]), format="rgb24")
