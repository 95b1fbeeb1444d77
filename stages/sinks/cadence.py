"""At what times pictures leave at a constant rate, and which picture leaves."""

from fractions import Fraction
from typing import Literal

OnFault = Literal["hold", "passthrough"]
Shown = Literal["styled", "raw", "held"]

_FAULT_FRAMES = 3
_LEAST_FAULT_NS = 1_000_000_000


class Cadence:
    """Absolute deadlines: tick k is due at `start + k / fps`, whatever the ticks before it took. Pure.

    skipped  ticks left out because their time, and that of the next, was over: no burst follows a pause
    """

    def __init__(self, fps: Fraction, start_ns: int) -> None:
        self._period = Fraction(10**9) / fps
        self._start_ns = start_ns
        self._tick = -1
        self.skipped = 0

    def next(self, now_ns: int) -> int:
        """Monotonic time of the next tick: in the past by less than a period if the last one took too long."""
        latest = int((now_ns - self._start_ns) / self._period)
        wanted = self._tick + 1
        self._tick = max(wanted, latest)
        self.skipped += self._tick - wanted
        return self._start_ns + round(self._tick * self._period)


def choose(on_fault: OnFault, period_ns: int, now_ns: int, styled_ns: int | None, raw_ns: int | None) -> Shown:
    """What to show, given when the last styled and the last raw picture came (None: never).

    A fault is a second (or three periods) without a styled picture. `hold` then goes on showing the last one;
    `passthrough` shows the source, as long as that at least moves."""
    patience_ns = max(_LEAST_FAULT_NS, _FAULT_FRAMES * period_ns)
    styled = styled_ns is not None and now_ns - styled_ns <= patience_ns
    raw = raw_ns is not None and now_ns - raw_ns <= patience_ns
    if not styled and raw and on_fault == "passthrough":
        return "raw"
    return "styled" if styled else "held"
