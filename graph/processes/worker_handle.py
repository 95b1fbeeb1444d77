"""What the supervisor knows of one worker."""

import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from warpfuse.graph.links.clock_offset import Trip, offset
from warpfuse.graph.metrics.report import Report
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.channel import Channel
from warpfuse.graph.processes.launcher import Launcher
from warpfuse.graph.processes.restart_policy import RestartPolicy

State = Literal["down", "starting", "ready", "running", "quieting", "gone"]
"""down: to be started at `due_s`; ready: stages open, no epoch; quieting: told to let go; gone: has said goodbye"""

_TRIPS = 8  # there and back, to compare clocks


@dataclass
class WorkerHandle:
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
    channel: Channel | None = None
    due_s: float = 0.0
    beat_s: float = 0.0
    life: int = 0
    pid: int = 0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    trips: list[Trip] = field(default_factory=list)
    spans: list[tuple[str, int, int, int]] = field(default_factory=list)
    _before: Report | None = None
    _now: Report | None = None

    @property
    def report(self) -> Report | None:
        """Its figures over all its lives, as far as they were told."""
        if self._now is None or self._before is None:
            return self._now or self._before
        return self._before + self._now

    @property
    def life_report(self) -> Report | None:
        """Its figures in this life alone, as told last."""
        return self._now

    def written(self, sink: str) -> int:
        """Frames a sink of it has written, over all its lives. Cheap: no histogram is looked at."""
        lives = [life for life in (self._before, self._now) if life is not None]
        return sum(life.sinks[sink].frames for life in lives if sink in life.sinks)

    @property
    def open(self) -> bool:
        """Its stages are open."""
        return self.state in ("ready", "running", "quieting")

    @property
    def alive(self) -> bool:
        """It has a process, or is about to have one."""
        return self.open or self.state == "starting"

    @property
    def ended(self) -> bool:
        """The end of the stream has come through all of its stages."""
        return self._now is not None and self._now.ended

    def send(self, order: protocol.Command) -> None:
        """Tell it something; lost with one that dies, and with none."""
        if self.channel is not None:
            self.channel.send(protocol.encode(order))

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
                sink = sinks[name]
                sinks[name] = msgspec.structs.replace(sink, abandoned=sink.abandoned + sink.done)
            report = msgspec.structs.replace(report, sinks=sinks)
        self._before = report

    def ask_its_clock(self) -> None:
        """Have it say what its clock says, a few times."""
        self.trips.clear()
        for _ in range(_TRIPS):
            self.send(protocol.Ping(time.monotonic_ns()))

    def clock_told(self, word: protocol.Pong, now_ns: int) -> None:
        """Its clock came; after the last time it is told how far that is from this one."""
        self.trips.append(Trip(word.t0, word.t1, word.t2, now_ns))
        if len(self.trips) == _TRIPS:
            self.send(protocol.SetClock(offset(self.trips)[0]))

    def ailing(self, now_s: float, now_ns: int, *, stage_s: float, hello_s: float) -> str:
        """Why it has to be given up, "" if it has not.

        stage_s  how long a call of a stage may last; hello_s: a process, before its first word
        """
        if self.channel is not None and self.channel.dead(now_ns):
            return "has stopped answering"
        if self.state == "running" and (stage := self._hanging(stage_s, now_s)):
            return f"stage {stage} has not returned for {stage_s:g} s"
        mute = self.channel is not None and self.channel.peer is None
        if self.state == "starting" and mute and self.launcher.age_s(self.name) > hello_s:
            return f"has not said a word in {hello_s:g} s"
        return ""

    def _hanging(self, deadline_s: float, now_s: float) -> str:
        """The stage whose call has lasted longer than the deadline, or all of them; "" for none."""
        if self._now is None:
            return ""
        silent = now_s - self.beat_s
        for runner in self._now.runners:
            if runner.busy_ns and runner.busy_ns / 1e9 + silent > deadline_s and runner.name != "source":
                return runner.name
        return ", ".join(self.nodes) if silent > deadline_s else ""


def home_of(handles: Sequence[WorkerHandle], node: str) -> WorkerHandle:
    """The worker that runs a stage."""
    return next(handle for handle in handles if node in handle.nodes)
