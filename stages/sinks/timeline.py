"""When a frame belongs on the screen, if the stream is shown in real time."""

_SLACK_NS = 500_000_000
_SLACK_FRAMES = 4


class Timeline:
    """Maps presentation times onto the monotonic clock: first frame now, the others as far apart as the source says.

    A frame that would be half a second (or four periods) away from where it is now moves the whole mapping: the source
    was interrupted, or its clock has drifted from ours. So the times never burst and never fall behind. Pure.
    """

    def __init__(self, period_ns: int) -> None:
        self._slack_ns = max(_SLACK_NS, _SLACK_FRAMES * period_ns)
        self._period_ns = period_ns
        self._offset_ns: int | None = None
        self._last_ns = 0
        self.moved = 0

    def due(self, pts_ns: int, now_ns: int) -> int:
        """Monotonic time of a frame, later than that of the one before it."""
        if self._offset_ns is None:
            self._offset_ns = now_ns - pts_ns
        elif abs(pts_ns + self._offset_ns - now_ns) > self._slack_ns:
            self._offset_ns = now_ns - pts_ns
            self.moved += 1
        self._last_ns = max(pts_ns + self._offset_ns, self._last_ns + 1)
        return self._last_ns
