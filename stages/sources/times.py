"""Presentation times from what a container says of them."""

from fractions import Fraction

_NS = 1_000_000_000


class Times:
    """Strictly increasing times from a stream's own, which may be missing, doubled or run backwards.

    time_base  seconds a tick
    start      tick that is time zero
    rate       frames a second; a frame without a time follows its predecessor by one period
    mended     times that were missing or did not increase, so far
    """

    def __init__(self, time_base: Fraction, start: int, rate: Fraction) -> None:
        self.mended = 0
        self.last_ns = 0
        self._time_base = time_base
        self._start = start
        self._period = max(1, round(1 / (rate * time_base)))
        self._last: int | None = None

    def __call__(self, pts: int | None) -> int:
        """The time of the next frame, nanoseconds from the start of the stream, rounded from the exact value."""
        if pts is None:
            tick = self._start if self._last is None else self._last + self._period
            self.mended += 1
        elif self._last is not None and pts <= self._last:
            tick = self._last + 1
            self.mended += 1
        else:
            tick = pts
        self._last = tick
        self.last_ns = round((tick - self._start) * self._time_base * _NS)
        return self.last_ns
