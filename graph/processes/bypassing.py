"""Opens bypass links when the workers at both of their ends are ready, independent of the workers between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.worker_handle import WorkerHandle


@dataclass
class BypassOpener:
    """Has the workers at the ends of each bypass open it, and open it again when one of them was started again."""

    bypasses: Sequence[LinkPlan]
    _opened: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _number: int = 0

    def tend(self, home_of: Callable[[str], WorkerHandle]) -> None:
        """Open the bypasses whose workers are ready or were started again. home_of: gives the worker of a stage."""
        for link in self.bypasses:
            ends = {handle.name: handle for handle in (home_of(link.sender), home_of(link.receiver))}
            lives = tuple(handle.life for handle in ends.values())
            there = all(handle.open for handle in ends.values())
            if there and self._opened.get(link.name) != lives:
                self._opened[link.name] = lives
                self._number += 1
                for handle in ends.values():
                    handle.send(protocol.OpenBypass(link.name, self._number))
