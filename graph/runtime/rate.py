"""Output at a constant frame rate.

At every tick the newest picture is shown. A picture that lasts for several ticks is repeated. A picture that is
replaced before a tick is skipped. Both are counted.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from warpfuse.stages.frame import RawFrame
from warpfuse.stages.timing import Latest, Ticker, tick_ns

HandOver = Callable[[RawFrame], None]

_NEAR_NS = 1000  # times this close to a tick are on it: containers round presentation times to their unit


def ticks_before(pts_ns: int, k: int, fps: Fraction) -> int:
    """Number of ticks, from tick k on, before a picture with this time. They still show the picture before it."""
    first = (pts_ns - _NEAR_NS) * fps / 1_000_000_000
    return max(0, -(-first.numerator // first.denominator) - k)


class Rate(Protocol):
    """Decides when frames are handed to a sink. The sink's thread calls `take` with every frame, then `end`.

    repeated  number of times a picture was handed over again
    """

    repeated: int

    def take(self, frame: RawFrame) -> None:
        """Take a frame. Its memory belongs to the caller again when this returns."""

    def end(self) -> None:
        """End the stream: hand over what is still due."""


class AsTheyCome:
    """Hands every frame over once, at once."""

    def __init__(self, hand_over: HandOver) -> None:
        self.repeated = 0
        self.take = hand_over

    def end(self) -> None:
        """Nothing is due: every frame was handed over when it was taken."""


class Resampled:
    """Resamples a file to another rate, by presentation times alone. So the same frames give the same file."""

    def __init__(self, hand_over: HandOver, fps: Fraction) -> None:
        self.repeated = 0
        self._hand_over = hand_over
        self._fps = fps
        self._k = 0
        self._pending: RawFrame | None = None
        self._fresh = True
        self._lasts_ns = 0

    def take(self, frame: RawFrame) -> None:
        """Take a frame, and show the picture before it at every tick until its time."""
        if self._pending is not None:
            self._lasts_ns = frame.stamp.pts_ns - self._pending.stamp.pts_ns
            self._show_until(frame.stamp.pts_ns, self._pending)
        self._pending, self._fresh = _own(frame), True

    def end(self) -> None:
        """Show the last picture for as long as the one before it."""
        if self._pending is not None:
            until = self._pending.stamp.pts_ns + self._lasts_ns
            self._show_until(max(until, 2 * _NEAR_NS), self._pending)  # a single picture is shown once

    def _show_until(self, pts_ns: int, frame: RawFrame) -> None:
        for _ in range(ticks_before(pts_ns, self._k, self._fps)):
            self._show(frame)

    def _show(self, frame: RawFrame) -> None:
        stamp = replace(frame.stamp, seq=self._k, pts_ns=tick_ns(self._k, self._fps))
        self._hand_over(RawFrame(stamp, frame.rgb))
        self.repeated += not self._fresh
        self._fresh = False
        self._k += 1


class Paced:
    """Shows a live stream at a constant rate, from a thread of its own. So a sink gets pictures while the graph stalls.

    clock  monotonic nanoseconds
    """

    def __init__(self, hand_over: HandOver, fps: Fraction, clock: Callable[[], int]) -> None:
        self.repeated = 0
        self._hand_over = hand_over
        self._fps = fps
        self._clock = clock
        self._latest: Latest[RawFrame] = Latest()
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wf:rate", daemon=True)

    def take(self, frame: RawFrame) -> None:
        """Take a frame, which is shown from the next tick on. Raises what the sink raised."""
        if self._error is not None:
            raise self._error
        self._latest.put(_own(frame))
        if self._thread.ident is None:
            self._thread.start()

    def end(self) -> None:
        """Stop after the picture that is being shown. Raises what the sink raised."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        ticker, shown = Ticker(self._fps, self._clock()), None
        try:
            while True:
                due_ns = ticker.next(self._clock())
                while (wait_ns := due_ns - self._clock()) > 0 and not self._ending.wait(wait_ns / 1e9):
                    pass
                ending = self._ending.is_set()  # read before `take`, so that a frame taken before `end` is shown
                fresh = self._latest.take()
                if fresh is None and ending:
                    return
                shown, k = fresh or shown, ticker.tick
                assert shown is not None
                stamp = replace(shown.stamp, seq=k, pts_ns=tick_ns(k, self._fps))
                self._hand_over(RawFrame(stamp, shown.rgb))
                self.repeated += fresh is None
        except BaseException as error:  # noqa: BLE001  (raised by the thread that takes)
            self._error = error


def _own(frame: RawFrame) -> RawFrame:
    return RawFrame(frame.stamp, np.array(frame.rgb))
