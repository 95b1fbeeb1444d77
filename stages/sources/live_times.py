"""Presentation times of a live source: its own spacing, on our clock."""

from warpfuse.stages.timing import ClockMap

_MS = 1_000_000


class LiveTimes:
    """Strictly increasing times, nanoseconds from the first picture.

    The sender's times give the spacing, for those of arrival jitter. But its clock drifts, starts anew with each
    connection, and may be nonsense: times that part from the arrival by more than `tolerance_ns` are laid on it again.
    None: never, for a clip that is read as fast as it comes.
    """

    def __init__(self, tolerance_ns: int | None = 500 * _MS) -> None:
        self._times = ClockMap(tolerance_ns, tolerance_ns)
        self._first_ns: int | None = None
        self._last_ns = -1

    def __call__(self, sent_ns: int | None, arrived_ns: int) -> int:
        """The time of a picture that the sender gave the time `sent_ns`, if any."""
        if self._first_ns is None:
            self._first_ns = arrived_ns
        time_ns = since_ns = arrived_ns - self._first_ns
        if sent_ns is not None:
            time_ns = self._times(sent_ns, since_ns)
        self._last_ns = max(time_ns, self._last_ns + _MS) if self._last_ns >= 0 else max(0, time_ns)
        return self._last_ns

    def restart(self) -> None:
        """The next picture is of another connection, with another clock."""
        self._times.restart()
