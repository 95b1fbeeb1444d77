"""A source that cannot wait: whoever reads gets the newest picture, or the last one again while nothing comes.

Nothing queues up. Whoever reads more slowly than pictures come gets the newest each time; those between are counted as
skipped. While nothing comes, the last picture is given again, marked stale, so that what hangs on the graph lives on.
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
_UNSHOWN = 100  # pictures in a row that could not be shown, after which the source counts as lost
_HOLD_S = 0.2  # between two stale pictures: enough to keep a picture on the air, and little work
_LOOK_UP_S = 0.1  # how soon a stop is seen before the first picture
_USUAL = Patience()


class LiveSource:
    """Frames of a connection that may break and come back. `read` and `close` belong to one thread, all else to any.

    info  of the first connection; frames keep its size whatever comes later
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

        Raises SourceLost when none comes, SourceError when it cannot be shown at `size`, Stopped once `stop` is set."""
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
            self._receiver.interrupt()  # not waited for: it may sit in FFmpeg, and leaves when that times out
            raise
        except BaseException:
            self._receiver.close()
            raise
        self._first: Arrived | None = first
        self._waited = False  # for what the frames are to be: the first picture is an old one by then
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
        """Give frames of this size, and so many, instead of what it was opened for. Before the first read.

        Raises SourceError when the picture cannot be shown at the size."""
        assert self._first is not None and self._count == 0, "it has been read"
        self._limit, self._waited = frames, True
        self._display = self._shown_at(self._first, size)

    def read(self) -> RawFrame | None:
        """The newest frame nobody read yet, waited for; the last one again, stale, while nothing comes.

        None at the end: of a clip, after `frames`, after `interrupt`, and when the source is `lost`."""
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
        """Show what is transparent in this colour, from the next frame on. After `fit`."""
        self._display.background = background

    @property
    def warning(self) -> str | None:
        """One line: what was done to show the pictures, and of a clip what was mended or missing. All else the states
        say already."""
        lines = [*self._receiver.remarks, *self._display.notes]
        return f"{self._receiver.shown}: {'; '.join(lines)}." if lines else None

    @property
    def lost(self) -> SourceLost | None:
        """Why the source is gone for good, once it is."""
        return self._receiver.lost

    def news(self) -> list[str]:
        """One line for each change of the connection's state since the last call."""
        return self._receiver.news()

    def report(self) -> dict[str, Any]:
        """Figures for the statistics: the connection's, and `held`, how many stale frames were given."""
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
        """The first picture, if nobody has had it; a newer one in its place if it is old, unless none may be lost."""
        if self._first is None or self._finite or not self._waited:
            return self._first
        return self._receiver.take(0) or self._first

    def _fresh(self, arrived: Arrived) -> RawFrame | None:
        """The picture as a frame, None if it cannot be shown. Raises SourceLost when none can be any more."""
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
        # A clip waits for its reader: when it was decoded says nothing about latency.
        return self._numbered(pts_ns, 0 if self._finite else arrived.at_ns, discontinuity=another, sound=sound)

    def _sounding(self, arrived: Arrived, pts_ns: int) -> tuple[tuple[int, bytes], ...]:
        """The sound that came with this picture and before it, beside it in time; an older connection's as it was."""
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
    """How a kind of live source reads its addresses."""

    def __call__(self, url: str, patience: Patience, near: tuple[int, int], /) -> Connect:
        """What makes connections to `url`. Raises SourceError for an address that is not understood.

        near  of a source that offers several sizes that above this (width, height) is taken
        """


class OpenLive(Protocol):
    """`open` of a live source."""

    def __call__(
        self, url: str, size: tuple[int, int] | None, frames: int | None, patience: Patience = ...,
        stop: threading.Event | None = None, near: tuple[int, int] | None = None,
    ) -> LiveSource:  # fmt: skip
        """See `live_source`."""


def live_source(connecting: Connecting) -> tuple[Callable[[str], VideoInfo], OpenLive]:
    """`probe` and `open` of the module of a live source."""

    def probe(url: str) -> VideoInfo:
        """Connect, look at the first picture, and leave again. Raises as `LiveSource` does, and SourceError."""
        patience = Patience()
        source = LiveSource(url, connecting(url, patience, USUAL_SIZE), patience=patience)
        source.close()
        return replace(source.info, frames=None)

    def open(
        url: str, size: tuple[int, int] | None, frames: int | None, patience: Patience = _USUAL,
        stop: threading.Event | None = None, near: tuple[int, int] | None = None,
    ) -> LiveSource:  # fmt: skip
        """Connect, and wait for the first picture. Raises as `LiveSource` does, and SourceError.

        near  of a source that offers several sizes that above this (width, height) is taken; None: above `size`
        """
        connect = connecting(url, patience, near or size or USUAL_SIZE)
        return LiveSource(url, connect, size, frames, patience=patience, stop=stop)

    return probe, open
