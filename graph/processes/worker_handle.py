"""The supervisor's handle of one worker."""

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
"""down: to be started at `due_s`; starting: not ready yet; ready: stages open, no epoch; running: in an epoch;
quieting: asked to end the epoch; gone: has exited"""

_TRIPS = 8  # round trips for comparing clocks


@dataclass
class WorkerHandle:
    """One worker, over all its restarts. A life is one of its processes.

    nodes     names of its stages
    due_s     when it is to be started (down), or has to be ready (starting)
    life      number of lives so far
    pid       process id in the last HELLO
    restarts  limits its restarts
    trips     round trips of the clock comparison under way
    spans     calls of its stages, if a trace was asked for
    beat_s    when its Python code last sent anything; a stage that holds the GIL prevents that
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
        """Its figures over all its lives; None before the first report."""
        if self._now is None or self._before is None:
            return self._now or self._before
        return self._before + self._now

    @property
    def life_report(self) -> Report | None:
        """Its newest figures in this life; None before the first report."""
        return self._now

    def written(self, sink: str) -> int:
        """Number of frames that one of its sinks has written over all lives. Unlike `report` it adds no histograms."""
        lives = [life for life in (self._before, self._now) if life is not None]
        return sum(life.sinks[sink].frames for life in lives if sink in life.sinks)

    @property
    def open(self) -> bool:
        """Its stages are open."""
        return self.state in ("ready", "running", "quieting")

    @property
    def alive(self) -> bool:
        """It has a process, or one is being started."""
        return self.open or self.state == "starting"

    @property
    def ended(self) -> bool:
        """All of its stages have handled the end of the stream."""
        return self._now is not None and self._now.ended

    def send(self, command: protocol.Command) -> None:
        """Send a command. It is discarded if the worker has no channel or is dead."""
        if self.channel is not None:
            self.channel.send(protocol.encode(command))

    def told(self, report: Report) -> None:
        """Store new figures of this life."""
        self._now = report

    def begins_anew(self, files: Container[str] = (), *, kept: bool = False) -> None:
        """End this life: add its figures to those of the earlier lives.

        files  sinks of output files, which were unfinished and are begun again
        kept   the unfinished files stay, and their frames count; else figures of these sinks are dropped
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
        """Start a comparison of clocks: send some Pings."""
        self.trips.clear()
        for _ in range(_TRIPS):
            self.send(protocol.Ping(time.monotonic_ns()))

    def clock_told(self, pong: protocol.Pong, now_ns: int) -> None:
        """Handle the answer to a Ping. After the last one, send the worker the offset of its clock."""
        self.trips.append(Trip(pong.t0, pong.t1, pong.t2, now_ns))
        if len(self.trips) == _TRIPS:
            self.send(protocol.SetClock(offset(self.trips)[0]))

    def ailing(self, now_s: float, now_ns: int, *, stage_s: float, hello_s: float) -> str:
        """Why the worker has to be given up; "" if it is healthy.

        stage_s  longest time of a stage's call
        hello_s  longest time from the start of a process to its HELLO
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
        """The stage whose call has lasted longer than the deadline; all stages if the worker sends nothing; else ""."""
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
