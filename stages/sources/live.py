"""Live sources, which cannot wait. The reader gets the newest picture, or the last one again while none comes.

Pictures do not queue. A slow reader gets the newest one each time, and those in between are counted as skipped. While
no picture comes, the last one is given again, marked stale, so that the sinks keep getting pictures.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from warpfuse.stages.errors import SourceError, SourceLost, Stopped
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sources.connection import Patience, State
from warpfuse.stages.sources.container import met, net
from warpfuse.stages.sources.display import Display
from warpfuse.stages.sources.live_times import LiveTimes
from warpfuse.stages.sources.receiver import Arrived, Receiver
from warpfuse.stages.sources.session import Connect
from warpfuse.stages.sources.transparency import Rgb
from warpfuse.stages.sources.variants import USUAL_SIZE
from warpfuse.stages.stage import VideoInfo

_TIME_BASE = Fraction(1, 90_000)
_UNSHOWN = 100  # pictures in a row that cannot be shown, after which the source counts as lost
_HOLD_S = 0.2  # interval of stale pictures: enough for the sinks, and little work
_LOOK_UP_S = 0.1  # interval at which a stop is noticed before the first picture
_USUAL = Patience()


class LiveSource:
    """The frames of a connection that is made again when it breaks. One thread calls `read` and `close`, any the rest.

    info  information on the first connection; frames keep their size after a reconnection
    """

    def __init__(
        self,
        url: str,
        connect: Connect,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        *,
        patience: Patience = _USUAL,
        clock: Callable[[], int] = time.monotonic_ns,
        jitter: Callable[[], float] = random.random,
        stop: threading.Event | None = None,
    ) -> None:
        """Connect, and wait for the first picture.

        Raises SourceLost when none comes, SourceError when it cannot be shown at `size`, Stopped when `stop` is set.
        """
        self._clock = clock
        self._limit, self._count, self._held, self._epoch = frames, 0, 0, 0
        self._unshown = 0
        self._sound_shift_ns: int | None = None
        self._last: npt.NDArray[np.uint8] | None = None
        self._receiver = Receiver(url, connect, patience, clock, jitter)
        try:
            first = self._await_first(stop)
            self._display = self._shown_at(first, size)
        except Stopped:
            self._receiver.interrupt()  # without waiting: its thread may be in FFmpeg, and ends when that times out
            raise
        except BaseException:
            self._receiver.close()
            raise
        self._first: Arrived | None = first
        self._waited = False  # `fit` was called: the first picture may be old by then
        self._finite = first.nature.finite
        self._times = LiveTimes(None) if self._finite else LiveTimes()
        width, height = self._display.natural
        self.info = VideoInfo(
            width,
            height,
            first.nature.rate,
            _TIME_BASE,
            frames,
            live=not self._finite,
            sound=b"" if self._finite else first.nature.sound,
        )

    def fit(self, size: tuple[int, int], frames: int | None) -> None:
        """Set size and number of the frames, before the first `read`. frames: None for all.

        Raises SourceError when the picture cannot be shown at the size.
        """
        assert self._first is not None and self._count == 0, "it has been read"
        self._limit, self._waited = frames, True
        self._display = self._shown_at(self._first, size)

    def read(self) -> RawFrame | None:
        """Wait for a frame that was not read yet; the newest one. While none comes, the last one again, marked stale.

        None at the end of a clip, after `frames` frames, after `interrupt`, and when the source is `lost`.
        """
        receiver = self._receiver
        while self._count != self._limit:
            if receiver.over and self._first is None:
                receiver.check()
                return None
            state, quiet_ns = receiver.look()
            timeout_s = quiet_ns / 1e9 if state is State.LIVE else max(_HOLD_S, float(1 / self.info.fps))
            arrived, self._first = self._earliest() or receiver.take(timeout_s), None
            if arrived is not None:
                fresh = self._fresh(arrived)
                if fresh is not None:
                    return fresh
            if self._last is not None and receiver.look()[0] is not State.LIVE:
                return self._stale()
        return None

    def compose_on(self, background: Rgb) -> None:
        """Set the background of transparent parts, from the next frame on. Call it after `fit`."""
        self._display.background = background

    @property
    def warning(self) -> str | None:
        """A line for the user: conversions of the pictures, and of a clip what was repaired or missing.

        Everything else is in `news`.
        """
        lines = [*self._receiver.remarks, *self._display.notes]
        return f"{self._receiver.shown}: {'; '.join(lines)}." if lines else None

    @property
    def lost(self) -> SourceLost | None:
        """Why the source is gone for good; None while it is not."""
        return self._receiver.lost

    def news(self) -> list[str]:
        """A line for the user for each change of the connection's state since the last call."""
        return self._receiver.news()

    def report(self) -> dict[str, Any]:
        """Figures of the connection, and `held`, the number of stale frames."""
        return {**self._receiver.report(), "held": self._held}

    def interrupt(self) -> None:
        """End the stream: a `read` that waits returns None at once."""
        self._receiver.interrupt()

    def close(self) -> None:
        """End the stream and the connection. A second call does nothing."""
        self._receiver.close()

    def _await_first(self, stop: threading.Event | None) -> Arrived:
        receiver = self._receiver
        while (first := receiver.take(None if stop is None else _LOOK_UP_S)) is None and not receiver.over:
            if stop is not None and stop.is_set():
                raise Stopped(f"{receiver.shown}: stopped while it was being connected")
        if first is None:
            raise self.lost or SourceLost(f"{receiver.shown}: it ended before its first picture.")
        return first

    def _shown_at(self, arrived: Arrived, size: tuple[int, int] | None) -> Display:
        try:
            with net(self._receiver.shown):
                return Display(arrived.picture.frame, arrived.nature.pixel_aspect, size)
        except SourceError as error:
            raise SourceError(f"{self._receiver.shown}: {error}") from None

    def _earliest(self) -> Arrived | None:
        """The first picture, if it was not read yet. After `fit` a newer one replaces it, except in a clip."""
        if self._first is None or self._finite or not self._waited:
            return self._first
        return self._receiver.take(0) or self._first

    def _fresh(self, arrived: Arrived) -> RawFrame | None:
        """The picture as a frame; None if it cannot be shown. Raises SourceLost after too many of those in a row."""
        another = arrived.epoch != self._epoch
        if another:
            self._times.restart()
            self._epoch = arrived.epoch
        try:
            self._last = self._display(arrived.picture.frame)
            self._display.tell(arrived.picture.note)
        except SourceError as error:
            raise SourceLost(f"{self._receiver.shown}: the picture changed: {error}") from None
        except Exception as error:
            self._unshown += 1
            if self._unshown < _UNSHOWN:
                return None
            raise SourceLost(f"{self._receiver.shown}: no picture can be shown any more: {met(error)}.") from error
        self._unshown = 0
        pts_ns = self._times(arrived.picture.sent_ns, arrived.at_ns)
        sound = self._sounding(arrived, pts_ns)
        # A clip waits for its reader, so the time when a picture was decoded says nothing about latency.
        return self._numbered(pts_ns, 0 if self._finite else arrived.at_ns, discontinuity=another, sound=sound)

    def _sounding(self, arrived: Arrived, pts_ns: int) -> tuple[tuple[int, bytes], ...]:
        """The sound that came with this picture and before it, with the offset to the frames' clock for each piece.

        Sound of the last connection keeps that connection's offset.
        """
        was_ns = self._sound_shift_ns
        if arrived.picture.sent_ns is not None:
            self._sound_shift_ns = pts_ns - arrived.picture.sent_ns
        pieces = self._receiver.sound()
        shifts = ((self._sound_shift_ns if epoch == arrived.epoch else was_ns, nut) for epoch, nut in pieces)
        return tuple((shift_ns, nut) for shift_ns, nut in shifts if shift_ns is not None)

    def _stale(self) -> RawFrame:
        self._held += 1
        now_ns = self._clock()
        return self._numbered(self._times(None, now_ns), now_ns, stale=True)

    def _numbered(
        self,
        pts_ns: int,
        arrived_ns: int,
        *,
        discontinuity: bool = False,
        stale: bool = False,
        sound: tuple[tuple[int, bytes], ...] = (),
    ) -> RawFrame:
        assert self._last is not None
        stamp = Stamp(self._count, pts_ns, arrived_ns, discontinuity, stale)
        self._count += 1
        return RawFrame(stamp, self._last, sound)


class Connecting(Protocol):
    """A function of a kind of live source that parses its addresses."""

    def __call__(self, url: str, patience: Patience, near: tuple[int, int], /) -> Connect:
        """Make a function that connects to `url`. Raises SourceError for an invalid address.

        near  if the source offers several sizes, the smallest of at least this (width, height) is taken
        """


class OpenLive(Protocol):
    """The function `open` of a kind of live source."""

    def __call__(
        self, url: str, size: tuple[int, int] | None, frames: int | None, patience: Patience = ...,
        stop: threading.Event | None = None, near: tuple[int, int] | None = None,
    ) -> LiveSource:  # fmt: skip
        """See `live_source`."""


def live_source(connecting: Connecting) -> tuple[Callable[[str], VideoInfo], OpenLive]:
    """Make `probe` and `open` for the module of a kind of live source."""

    def probe(url: str) -> VideoInfo:
        """Connect, wait for the first picture, and disconnect. Raises as `LiveSource` does, and SourceError."""
        patience = Patience()
        source = LiveSource(url, connecting(url, patience, USUAL_SIZE), patience=patience)
        source.close()
        return replace(source.info, frames=None)

    def open(
        url: str, size: tuple[int, int] | None, frames: int | None, patience: Patience = _USUAL,
        stop: threading.Event | None = None, near: tuple[int, int] | None = None,
    ) -> LiveSource:  # fmt: skip
        """Connect, and wait for the first picture. Raises as `LiveSource` does, and SourceError.

        near  if the source offers several sizes, the smallest of at least this (width, height) is taken; None: `size`
        """
        connect = connecting(url, patience, near or size or USUAL_SIZE)
        return LiveSource(url, connect, size, frames, patience=patience, stop=stop)

    return probe, open
