"""Offset between the clocks of two hosts, estimated from round trips, as NTP does."""

from collections.abc import Sequence
from typing import NamedTuple


class Trip(NamedTuple):
    """Times of one round trip, ns. t0, t3: request sent and answer received, by the local clock. t1, t2: request
    received and answer sent, by the remote clock."""

    t0: int
    t1: int
    t2: int
    t3: int

    @property
    def round_ns(self) -> int:
        """Time in transit, both directions together."""
        return (self.t3 - self.t0) - (self.t2 - self.t1)

    @property
    def offset_ns(self) -> int:
        """Local clock minus remote clock, if both directions took equally long."""
        return ((self.t0 - self.t1) + (self.t3 - self.t2)) // 2


def offset(trips: Sequence[Trip]) -> tuple[int, int]:
    """(local clock minus remote clock, largest error of it), ns, from the trip with the shortest time in transit.

    A slow trip was mostly held up in one direction, which falsifies its offset. The error is at most half the time in
    transit.
    """
    best = min(trips, key=lambda trip: trip.round_ns)
    return best.offset_ns, (best.round_ns + 1) // 2
