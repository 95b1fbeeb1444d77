"""Links on which nothing moves although a frame waits and its reader has time: the reader keeps what it was given.

A stage that works too long is seen by its call, one that died by its process. This third way to stand still shows
nowhere but between two workers: the sender has a frame and no credit, the reader has no frame and is in no call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from warpfuse.graph.metrics.report import Report, RunnerReport


@dataclass
class StarvedLinks:
    """Finds them from what workers tell, again and again.

    readers  link -> the stage that reads it
    lanes    stage -> its lane: while one stage of it is in a call, no other has time
    """

    readers: Mapping[str, str]
    lanes: Mapping[str, str]
    _since: dict[tuple[str, int], float] = field(default_factory=dict)

    def longest(self, reports: Iterable[Report], now_s: float) -> tuple[str, float] | None:
        """The link that has stood still for longest and for how many seconds; None: everything moves.

        A link that was seen to move, even once, begins anew.
        """
        runners = [runner for report in reports for runner in report.runners]
        busy = {self.lanes.get(runner.name) for runner in runners if runner.busy_ns}
        idle = {r.name: r for r in runners if not r.ended and self.lanes.get(r.name) not in busy}
        standing = {
            (name, link.sent)
            for runner in runners
            for name, link in runner.links.items()
            if link.waiting and self._starves(name, idle)
        }
        self._since = {key: self._since.get(key, now_s) for key in standing}
        if not self._since:
            return None
        (name, _), since = min(self._since.items(), key=lambda item: item[1])
        return name, now_s - since

    def forget(self) -> None:
        """Another epoch: links are new."""
        self._since = {}

    def _starves(self, link: str, idle: Mapping[str, RunnerReport]) -> bool:
        reader = idle.get(self.readers.get(link, ""))
        return reader is not None and link in reader.starving
