"""Presentation times of a live source: its own spacing, on our clock."""

_MS = 1_000_000


class LiveTimes:
    """Strictly increasing times, nanoseconds from the first picture.

    The sender's times give the spacing, for those of arrival jitter. But its clock drifts, starts anew with each
    connection, and may be nonsense: times that part from the arrival by more than `tolerance_ns` are laid on it again.
    None: never, for a clip that is read as fast as it comes.
    """

    def __init__(self, tolerance_ns: int | None = 500 * _MS) -> None:
        self._tolerance_ns = tolerance_ns
        self._first_ns: int | None = None
        self._shift_ns: int | None = None
        self._last_ns = -1

    def __call__(self, sent_ns: int | None, arrived_ns: int) -> int:
        """The time of a picture that the sender gave the time `sent_ns`, if any."""
        if self._first_ns is None:
            self._first_ns = arrived_ns
        since_ns = arrived_ns - self._first_ns
        if sent_ns is None:
            return self._later(since_ns)
        if self._shift_ns is None:
            self._shift_ns = since_ns - sent_ns
        time_ns = sent_ns + self._shift_ns
        if self._tolerance_ns is not None and abs(time_ns - since_ns) > self._tolerance_ns:
            self._shift_ns, time_ns = since_ns - sent_ns, since_ns
        return self._later(time_ns)

    def restart(self) -> None:
        """The next picture is of another connection, with another clock."""
        self._shift_ns = None

    def _later(self, time_ns: int) -> int:
        self._last_ns = max(time_ns, self._last_ns + _MS) if self._last_ns >= 0 else max(0, time_ns)
        return self._last_ns


class Pace:
    """When to show pictures that come in bursts (HLS sends a segment at a time): at their own spacing.

    A picture that is late by more than `tolerance_ns`, or early by more than a playlist holds, is shown at once, and
    those after it follow it.
    """

    def __init__(self, tolerance_ns: int = 1000 * _MS, longest_ns: int = 60_000 * _MS) -> None:
        self._tolerance_ns = tolerance_ns
        self._longest_ns = longest_ns
        self._shift_ns: int | None = None

    def wait_ns(self, sent_ns: int | None, now_ns: int) -> int:
        """How long to hold the picture back; 0 or less: show it."""
        if sent_ns is None:
            return 0
        wait_ns = 0 if self._shift_ns is None else sent_ns + self._shift_ns - now_ns
        if self._shift_ns is None or not -self._tolerance_ns <= wait_ns <= self._longest_ns:
            self._shift_ns = now_ns - sent_ns
            return 0
        return wait_ns
