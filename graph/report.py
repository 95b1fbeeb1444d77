"""What a worker tells of itself: the figures of its runners, in a form that crosses processes and can be merged."""

from collections.abc import Sequence
from typing import Any

import msgspec

from warpfuse.graph.build import Materials
from warpfuse.graph.meters import FrameCounts, Meter, Stats
from warpfuse.graph.runner import Runner
from warpfuse.graph.sink_runner import SinkRunner
from warpfuse.graph.source_runner import SourceRunner


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LinkReport(_Part, frozen=True):
    """Figures of one link, told by its sender. waiting: a frame is there that has no credit."""

    slots: int
    sent: int
    peak: int
    dropped: int
    waiting: bool = False


class RunnerReport(_Part, frozen=True):
    """Figures of one stage. busy_ns: how long the call it is in has lasted, 0: in none.

    meter, hops  encoded histograms: of its calls, and by the name of each link into it
    starving     links into it that have no frame for it
    """

    name: str
    frames: int
    passed: int
    ended: bool
    busy_ns: int
    meter: str
    links: dict[str, LinkReport]
    hops: dict[str, str] = {}
    starving: list[str] = []


class SourceReport(_Part, frozen=True):
    """Figures of the source.

    dropped        all that were; paused: those of them that came in a pause
    figures, lost  of one that breaks and comes back: its own, and why it is gone for good
    """

    reached: int
    dropped: int
    started_ns: int
    since_ns: int
    warning: str | None
    figures: dict[str, Any] = {}
    lost: str | None = None
    paused: int = 0


class SinkReport(_Part, frozen=True):
    """Figures of a sink. abandoned: so many of its new pictures are in files that were not finished when it died."""

    frames: int
    held: int
    shown: int
    repeated: int
    ended_ns: int
    complete: bool
    latency: str
    age: str
    notes: list[str]
    abandoned: int = 0

    @property
    def done(self) -> int:
        """New pictures in what it writes now."""
        return self.frames - self.repeated - self.abandoned


class Report(_Part, frozen=True):
    """Figures of a worker. source, sinks: of those that it runs, by name of the stage."""

    worker: str
    runners: list[RunnerReport]
    sources: dict[str, SourceReport]
    sinks: dict[str, SinkReport]

    @property
    def ended(self) -> bool:
        """The end of the stream has come through every stage."""
        return all(runner.ended for runner in self.runners)

    @property
    def newest(self) -> int:
        """The newest frame that any stage has handled, -1 before the first."""
        return max((runner.passed for runner in self.runners), default=-1)


def report(worker: str, runners: Sequence[Runner], now_ns: int) -> Report:
    """The figures of a worker's runners, from any thread: a histogram that is being written may lack the last entry."""
    sources = {r.stage_name: r for r in runners if isinstance(r, SourceRunner)}
    sinks = {r.stage_name: r for r in runners if isinstance(r, SinkRunner)}
    return Report(
        worker,
        [_runner(runner, now_ns) for runner in runners],
        {n: _source(r) for n, r in sources.items()},
        {n: _sink(r) for n, r in sinks.items()},
    )


def _runner(runner: Runner, now_ns: int) -> RunnerReport:
    busy_since = runner.busy_since
    return RunnerReport(
        runner.stage_name,
        runner.frames,
        runner.passed,
        runner.ended,
        max(0, now_ns - busy_since) if busy_since else 0,
        runner.meter.encode(),
        {name: LinkReport(f.slots, f.sent, f.peak, f.dropped, f.waiting) for name, f in runner.links.items()},
        {name: meter.encode() for name, meter in runner.hops.items()},
        runner.starving,
    )


def _source(r: SourceRunner) -> SourceReport:
    own = r.recovering
    figures, lost = (own.report(), own.lost) if own is not None else ({}, None)
    told = None if lost is None else str(lost)
    return SourceReport(r.reached, r.dropped, r.started_ns, r.since_ns, r.warning, figures, told, r.passed_over)


def _sink(runner: SinkRunner) -> SinkReport:
    return SinkReport(
        runner.frames,
        runner.held,
        runner.shown,
        runner.repeated,
        runner.ended_ns,
        runner.complete,
        runner.latency.encode(),
        runner.age.encode(),
        runner.notes,
    )


def stats_of(
    reports: Sequence[Report],
    materials: Materials,
    *,
    failed: int = 0,
    restarts: int = 0,
    warnings: tuple[str, ...] = (),
) -> Stats:
    """The figures of a run. failed: frames dropped because a stage raised; reports: one of each worker."""
    sources = [source for r in reports for source in r.sources.values()]
    sinks = {name: sink for r in reports for name, sink in r.sinks.items()}
    runners = {runner.name: runner for r in reports for runner in r.runners}
    first = sinks.get("sink_1") or SinkReport(0, 0, -1, 0, 0, False, Meter().encode(), Meter().encode(), [])
    links = {name: link for runner in runners.values() for name, link in runner.links.items()}
    into = sum(source.reached for source in sources)
    # Those behind the newest that was shown are on their way yet, while there is a sink to show them.
    under_way = 0 if first.complete else max(0, into - 1 - first.shown)
    missing = into + first.repeated - first.frames
    paused = sum(source.paused for source in sources)
    late = sum(source.dropped for source in sources) - paused + sum(link.dropped for link in links.values())
    # Numbers of frames that a lost source had dropped are given again by the next: they are counted once.
    late = max(0, min(late, missing - failed - paused))
    gone = max(0, missing - late - paused - failed)
    restart = max(0, gone - under_way)
    started = min((source.started_ns for source in sources if source.started_ns), default=0)
    ended = max((sink.ended_ns for sink in sinks.values()), default=0)
    told = [source.warning for source in sources if source.warning] + [n for s in sinks.values() for n in s.notes]
    return Stats(
        frames=FrameCounts(into, first.frames, missing - gone + restart, first.repeated, first.held),
        drops={"late": late, "paused": paused, "failed": failed, "restart": restart},
        seconds=(ended - started) / 1e9 if ended > started > 0 else 0.0,
        latency=Meter.decode(first.latency),
        age=Meter.decode(first.age),
        stages={name: Meter.decode(runner.meter) for name, runner in runners.items()},
        links={name: {"sent": link.sent, "peak": link.peak, "slots": link.slots} for name, link in links.items()},
        hops={name: Meter.decode(hop) for runner in runners.values() for name, hop in runner.hops.items()},
        restarts=restarts,
        backend=materials.engines.in_use,
        precision=materials.bundle.precision,
        device=materials.config.device,
        bundle=materials.bundle.about.name,
        size=materials.size,
        steps=materials.config.steps,
        warnings=(*warnings, *told),
        source=next((source.figures for source in sources), {}),
        source_lost=next((source.lost for source in sources if source.lost), None),
    )
