"""Presentation times of a live source: the sender's intervals, on the local clock."""

from warpfuse.stages.timing import ClockMap

_MS = 1_000_000


class LiveTimes:
    """Strictly increasing times, ns from the first picture.

    The sender's times give the intervals, since times of arrival jitter. But the sender's clock drifts, starts again
    with each connection, and may be wrong. So times that differ from the arrival by more than `tolerance_ns` are mapped
    to the arrival again. tolerance_ns: None for a clip, which is read as fast as it comes.
    """

    def __init__(self, tolerance_ns: int | None = 500 * _MS) -> None:
        self._times = ClockMap(tolerance_ns, tolerance_ns)
        self._first_ns: int | None = None
        self._last_ns = -1

    def __call__(self, sent_ns: int | None, arrived_ns: int) -> int:
        """The time of a picture. sent_ns: the sender's time of it; None: it gave none."""
        if self._first_ns is None:
            self._first_ns = arrived_ns
        time_ns = since_ns = arrived_ns - self._first_ns
        if sent_ns is not None:
            time_ns = self._times(sent_ns, since_ns)
        self._last_ns = max(time_ns, self._last_ns + _MS) if self._last_ns >= 0 else max(0, time_ns)
        return self._last_ns

    def restart(self) -> None:
        """Forget the sender's clock: the next picture is of another connection."""
        self._times.restart()
