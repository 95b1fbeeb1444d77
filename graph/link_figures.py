"""What a sender counted on one link, over all epochs."""

from dataclasses import dataclass

from warpfuse.graph.link import Outlet


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """peak: the most slots in use at once; waiting: a frame has no credit just now."""

    slots: int
    sent: int = 0
    peak: int = 0
    dropped: int = 0
    waiting: bool = False

    def plus(self, outlet: Outlet) -> "LinkFigures":
        """These and what the sending end of another epoch has counted."""
        return LinkFigures(
            outlet.plan.slots,
            self.sent + outlet.sent,
            max(self.peak, outlet.peak),
            self.dropped + outlet.dropped,
            outlet.waiting > 0,
        )
