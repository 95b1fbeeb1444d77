"""Detection of stalled links: a frame waits for a credit while its reader is idle and has not returned a credit.

A stage that works too long is detected by its call, a dead one by its process. A stalled link can only be seen from the
figures of two workers: the sender has a frame and no credit, and the reader has no frame and is in no call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from warpfuse.graph.metrics.report import Report, RunnerReport


@dataclass
class StarvedLinks:
    """Finds stalled links in successive reports of the workers.

    readers  link -> the stage that reads it
    lanes    stage -> its lane; while one stage of a lane is in a call, its other stages are not idle
    """

    readers: Mapping[str, str]
    lanes: Mapping[str, str]
    _since: dict[tuple[str, int], float] = field(default_factory=dict)

    def longest(self, reports: Iterable[Report], now_s: float) -> tuple[str, float] | None:
        """The link that has been stalled for the longest time, and that time in s; None: no link is stalled.

        The time of a link starts again when a report shows that it moved.
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
        """Forget all links, at the begin of an epoch."""
        self._since = {}

    def _starves(self, link: str, idle: Mapping[str, RunnerReport]) -> bool:
        reader = idle.get(self.readers.get(link, ""))
        return reader is not None and link in reader.starving
