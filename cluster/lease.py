"""Until when a host may run a stream that its controller does not confirm.

Note: no two clocks. A host counts its beats, and a grant names the beat that it answers. The lease runs from when the
host *sent* that beat, by its own clock, which was before the controller sent the grant. So a lease is over on the host
not later than `lease_s` after its controller granted it, however long the grant was on its way, and the controller may
start the stream elsewhere `lease_s` (and a little, for clocks of different pace) after its last grant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from warpfuse.graph.control.messages import Grant

PACE_S = 1.0
"""What a controller waits beyond a lease."""

_BEATS = 64  # of which it is known when they were sent


@dataclass
class Leases:
    """The leases of one life of a host. first: number of its first beat, drawn at random: no other life has it."""

    first: int = 1
    _sent: dict[int, float] = field(default_factory=dict)
    _until: dict[str, tuple[int, float]] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)

    def beat(self, now_s: float) -> int:
        """The number of a beat that is sent now."""
        number = max(self._sent, default=self.first - 1) + 1
        self._sent[number] = now_s
        if len(self._sent) > _BEATS:
            del self._sent[min(self._sent)]
        return number

    def take(self, stream: str, grant: Grant, now_s: float) -> bool:
        """Note a grant; False: it is over already, or of a life that has ended or is older than the one under way."""
        generation, until = self._until.get(stream, (0, 0.0))
        sent = self._sent.get(grant.beat)
        if sent is None or sent + grant.for_s <= now_s:
            return False
        if grant.generation < generation or grant.generation <= self._ended.get(stream, 0):
            return False
        new = sent + grant.for_s
        self._until[stream] = grant.generation, max(until, new) if grant.generation == generation else new
        return True

    def renew(self, grants: Mapping[str, Grant], now_s: float) -> None:
        """Note the grants of streams that this host runs in that life."""
        for stream, grant in grants.items():
            if self._until.get(stream, (0, 0.0))[0] == grant.generation:
                self.take(stream, grant, now_s)

    def over(self, now_s: float) -> list[str]:
        """Streams whose lease is over."""
        return [stream for stream, (_, until) in self._until.items() if until <= now_s]

    def generation(self, stream: str) -> int:
        """Of the life that is under way here; 0: none is."""
        return self._until.get(stream, (0, 0.0))[0]

    def drop(self, stream: str) -> None:
        """The stream has ended here: orders for this life or an older one are refused from now on."""
        generation, _ = self._until.pop(stream, (0, 0.0))
        self._ended[stream] = max(generation, self._ended.get(stream, 0))
