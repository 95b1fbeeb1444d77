"""What the supervisor knows of one worker."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from warpfuse.graph import orders
from warpfuse.graph.clocks import Trip
from warpfuse.graph.launcher import Launcher
from warpfuse.graph.line import Line
from warpfuse.graph.lives import combined
from warpfuse.graph.report import Report
from warpfuse.graph.restarts import Restarts

State = Literal["down", "starting", "ready", "running", "quieting", "gone"]
"""down: to be started at `due_s`; ready: stages open, no epoch; quieting: told to let go; gone: has said goodbye"""


@dataclass
class Member:
    """One worker, over all its lives.

    nodes     the stages it runs
    due_s     when it is to be started, or by when it has to be ready
    pid       of the life that said HELLO last
    beat_s    when Python of it was last heard; a stage that holds the interpreter makes this old
    """

    name: str
    nodes: tuple[str, ...]
    launcher: Launcher
    state: State = "down"
    line: Line | None = None
    due_s: float = 0.0
    beat_s: float = 0.0
    life: int = 0
    pid: int = 0
    restarts: Restarts = field(default_factory=Restarts)
    trips: list[Trip] = field(default_factory=list)
    spans: list[tuple[str, int, int, int]] = field(default_factory=list)
    _before: Report | None = None
    _now: Report | None = None

    @property
    def report(self) -> Report | None:
        """Its figures over all its lives, as far as they were told."""
        if self._now is None or self._before is None:
            return self._now or self._before
        return combined({self.name: self._before}, self._now)

    @property
    def life_report(self) -> Report | None:
        """Its figures in this life alone, as told last."""
        return self._now

    def written(self, sink: str) -> int:
        """Frames a sink of it has written, over all its lives. Cheap: no histogram is looked at."""
        lives = [life for life in (self._before, self._now) if life is not None]
        return sum(life.sinks[sink].frames for life in lives if sink in life.sinks)

    @property
    def ended(self) -> bool:
        """The end of the stream has come through all of its stages."""
        return self._now is not None and self._now.ended

    def send(self, order: orders.Order) -> None:
        """Tell it something; lost with one that dies, and with none."""
        if self.line is not None:
            self.line.send(orders.encode(order))

    def told(self, report: Report) -> None:
        """New figures of this life."""
        self._now = report

    def begins_anew(self, files: Container[str] = (), *, kept: bool = False) -> None:
        """Its life is over: what it had told is kept.

        files  sinks whose file was not finished, and is begun anew; kept: the part stays, and its frames count, else
               they are lost with it
        """
        report, self._now = self.report, None
        if report is not None:
            sinks = {name: sink for name, sink in report.sinks.items() if kept or name not in files}
            for name in (name for name in sinks if name in files):
                sinks[name] = msgspec.structs.replace(sinks[name], left=sinks[name].left + sinks[name].done)
            report = msgspec.structs.replace(report, sinks=sinks)
        self._before = report

    def hanging(self, deadline_s: float, now_s: float) -> str:
        """The stage whose call has lasted longer than the deadline, or all of them; "" for none."""
        if self._now is None:
            return ""
        silent = now_s - self.beat_s
        for runner in self._now.runners:
            if runner.busy_ns and runner.busy_ns / 1e9 + silent > deadline_s and runner.name != "source":
                return runner.name
        return ", ".join(self.nodes) if silent > deadline_s else ""


def home_of(members: Sequence[Member], node: str) -> Member:
    """The worker that runs a stage."""
    return next(member for member in members if node in member.nodes)
