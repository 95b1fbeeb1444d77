"""The clock of another host, told by messages that go there and back."""

from collections.abc import Sequence
from typing import NamedTuple


class Trip(NamedTuple):
    """A message left here at t0, came there at t1, the answer left there at t2 and came here at t3; ns, own clocks."""

    t0: int
    t1: int
    t2: int
    t3: int

    @property
    def round_ns(self) -> int:
        """Time on the way, both ways."""
        return (self.t3 - self.t0) - (self.t2 - self.t1)

    @property
    def offset_ns(self) -> int:
        """What to add to the clock there to have the one here, if both ways took as long."""
        return ((self.t0 - self.t1) + (self.t3 - self.t2)) // 2


def offset(trips: Sequence[Trip]) -> tuple[int, int]:
    """(what to add to the clock there, how far off it may be), ns: that of the quickest trip.

    What is on the way for long has waited somewhere, and mostly in one direction; the error is at most half the way.
    """
    best = min(trips, key=lambda trip: trip.round_ns)
    return best.offset_ns, (best.round_ns + 1) // 2
