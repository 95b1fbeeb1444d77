"""What is counted of a run, in a form that crosses processes, and how it adds up.

`a + b` is the figures of a and, after it, of b: of the next epoch, or of the next life of a worker. Counts and
histograms are added; of what can only be newest, b's is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from warpfuse.graph.metrics.meters import FrameCounts, Meter, Stats

T = TypeVar("T", "RunnerReport", "SourceReport", "SinkReport", "LinkReport")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LinkReport(_Part, frozen=True):
    """Figures of one link, told by its sender. peak: most slots in use at once; waiting: a frame has no credit now."""

    slots: int
    sent: int = 0
    peak: int = 0
    dropped: int = 0
    waiting: bool = False

    def __add__(self, later: "LinkReport") -> "LinkReport":
        counts = self.sent + later.sent, max(self.peak, later.peak), self.dropped + later.dropped
        return LinkReport(later.slots, *counts, later.waiting)


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

    def __add__(self, later: "RunnerReport") -> "RunnerReport":
        return replace(
            later,
            frames=self.frames + later.frames,
            passed=max(self.passed, later.passed),
            meter=summed(self.meter, later.meter),
            links=self.links | _added(self.links, later.links),
            hops={n: summed(self.hops[n], hop) if n in self.hops else hop for n, hop in later.hops.items()},
        )


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

    def __add__(self, later: "SourceReport") -> "SourceReport":
        return SourceReport(
            max(self.reached, later.reached),
            self.dropped + later.dropped,
            self.started_ns or later.started_ns,
            self.since_ns or later.since_ns,
            later.warning or self.warning,
            later.figures or self.figures,
            later.lost or self.lost,
            self.paused + later.paused,
        )


class SinkReport(_Part, frozen=True):
    """Figures of a sink. abandoned: so many of its new pictures are in files that were not finished when it died.

    latency, age  encoded histograms
    begun_ns      when the source had the first picture that was handed over; 0: none was
    """

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
    begun_ns: int = 0

    @property
    def done(self) -> int:
        """New pictures in what it writes now."""
        return self.frames - self.repeated - self.abandoned

    def __add__(self, later: "SinkReport") -> "SinkReport":
        return replace(
            later,
            frames=self.frames + later.frames,
            held=self.held + later.held,
            shown=max(self.shown, later.shown),
            repeated=self.repeated + later.repeated,
            abandoned=self.abandoned + later.abandoned,
            begun_ns=self.begun_ns or later.begun_ns,
            latency=summed(self.latency, later.latency),
            age=summed(self.age, later.age),
            notes=list(dict.fromkeys([*self.notes, *later.notes])),
        )


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

    def __add__(self, later: "Report") -> "Report":
        was, now = ({runner.name: runner for runner in report.runners} for report in (self, later))
        return Report(
            later.worker,
            list(_added(was, now).values()),
            _added(self.sources, later.sources),
            _added(self.sinks, later.sinks),
        )


def summed(*meters: str) -> str:
    """One histogram of several, all encoded."""
    whole = Meter()
    for encoded in meters:
        whole += Meter.decode(encoded)
    return whole.encode()


def _added(before: Mapping[str, T], later: Mapping[str, T]) -> dict[str, T]:
    """Those of `later`, each with what it had counted before."""
    return {name: before[name] + figures if name in before else figures for name, figures in later.items()}


class Setup(NamedTuple):
    """What a run is made of, as `Stats` tells it."""

    backend: str
    precision: str
    device: str
    bundle: str
    size: tuple[int, int]
    steps: int


_NO_SINK = SinkReport(0, 0, -1, 0, 0, False, Meter().encode(), Meter().encode(), [])


def stats_of(
    reports: Sequence[Report],
    setup: Setup,
    *,
    failed: int = 0,
    restarts: int = 0,
    warnings: tuple[str, ...] = (),
) -> Stats:
    """The figures of a run. failed: frames dropped because a stage raised; reports: one of each worker."""
    sources = [source for r in reports for source in r.sources.values()]
    sinks = {name: sink for r in reports for name, sink in r.sinks.items()}
    runners = {runner.name: runner for r in reports for runner in r.runners}
    links = {name: link for runner in runners.values() for name, link in runner.links.items()}
    first = sinks.get("sink_1", _NO_SINK)
    frames, drops = counted(sources, first, sum(link.dropped for link in links.values()), failed)
    told = [source.warning for source in sources if source.warning] + [n for s in sinks.values() for n in s.notes]
    return Stats(
        frames=frames,
        drops=drops,
        seconds=_seconds(sources, sinks.values()),
        latency=Meter.decode(first.latency),
        age=Meter.decode(first.age),
        stages={name: Meter.decode(runner.meter) for name, runner in runners.items()},
        links={name: {"sent": link.sent, "peak": link.peak, "slots": link.slots} for name, link in links.items()},
        hops={name: Meter.decode(hop) for runner in runners.values() for name, hop in runner.hops.items()},
        restarts=restarts,
        warnings=(*warnings, *told),
        source=next((source.figures for source in sources), {}),
        source_lost=next((source.lost for source in sources if source.lost), None),
        **setup._asdict(),
    )


class SinkCounts(Protocol):
    """What of a sink `counted` needs; a sink that is at work has it too, without a histogram made into text."""

    @property
    def frames(self) -> int:
        """Pictures handed over."""

    @property
    def held(self) -> int:
        """Those of them that the networks were spared."""

    @property
    def shown(self) -> int:
        """Number of the newest, -1 before the first."""

    @property
    def repeated(self) -> int:
        """Pictures handed over once more."""

    @property
    def complete(self) -> bool:
        """Nothing more comes."""


def counted(
    sources: Sequence[SourceReport], sink: SinkCounts, dropped: int, failed: int
) -> tuple[FrameCounts, dict[str, int]]:
    """Frames, and why they were dropped. dropped: by links; failed: at a stage that raised.

    Note: figures under way. Source and sink are asked one after the other, in several processes up to a beat apart. So
    a frame may be shown that the source is not known to have read. What was shown was read, and every frame that was
    read is shown, dropped or on its way: that holds at every moment.
    """
    new = max(0, sink.frames - sink.repeated)
    into = max(sum(source.reached for source in sources), sink.shown + 1, new)
    missing = into - new
    paused = min(sum(source.paused for source in sources), missing)
    failed = min(failed, missing - paused)
    # Numbers of frames that a lost source had dropped are given again by the next: they are counted once.
    late = max(0, sum(source.dropped - source.paused for source in sources) + dropped)
    late = min(late, missing - paused - failed)
    gone = missing - paused - failed - late
    # Those behind the newest that was shown are on their way yet, while there is a sink to show them.
    under_way = 0 if sink.complete else min(gone, into - 1 - sink.shown)
    drops = {"late": late, "paused": paused, "failed": failed, "restart": gone - under_way}
    return FrameCounts(into, sink.frames, missing - under_way, sink.repeated, sink.held, under_way), drops


def _seconds(sources: Iterable[SourceReport], sinks: Iterable[SinkReport]) -> float:
    """From the first read to the last hand-over; 0 before that.

    The worker of the sink may have told of a picture before that of the source has told of its first read.
    """
    shown = [sink for sink in sinks if sink.ended_ns]
    read = [source.started_ns for source in sources] + [sink.begun_ns for sink in shown]
    started = min(filter(None, read), default=0)
    ended = max((sink.ended_ns for sink in shown), default=0)
    return (ended - started) / 1e9 if ended > started > 0 else 0.0
