"""Reports of a worker's figures, in a form that can be sent between processes, and their sums.

`a + b` sums the figures of two periods, a before b: two epochs, or two lives of a worker that was started again. Counts
and histograms are added. Of a state, such as `waiting`, b's is taken.
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
    """Figures of one link, from its sender. peak: most slots in use at once; waiting: a frame waits for a credit."""

    slots: int
    sent: int = 0
    peak: int = 0
    dropped: int = 0
    waiting: bool = False

    def __add__(self, later: "LinkReport") -> "LinkReport":
        counts = self.sent + later.sent, max(self.peak, later.peak), self.dropped + later.dropped
        return LinkReport(later.slots, *counts, later.waiting)


class RunnerReport(_Part, frozen=True):
    """Figures of one stage.

    passed       number of the newest frame it has handled, -1 before the first
    ended        it has handled the end of the stream
    busy_ns      age of the call under way; 0 between calls
    meter, hops  encoded histograms of its calls, and of the hops on each link into it, by link name
    links        figures of the links out of it
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

    dropped     frames dropped by the source
    paused      frames among `dropped` that arrived while the run was paused
    started_ns  when its first frame was read, by the run's clock; 0: none was
    figures     a live source's own figures
    lost        why a live source is gone for good
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
    """Figures of a sink.

    frames        pictures written, repeats included
    repeated      pictures among `frames` that repeat the one before
    abandoned     new pictures in files that were not finished when the sink's process died
    latency, age  encoded histograms
    begun_ns      when the first picture written had arrived at the source; 0: none was written
    first_ns      when it had been written
    control       encoded histogram: from a change of settings to the first picture made with it
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
    first_ns: int = 0
    control: str = ""

    @property
    def done(self) -> int:
        """New pictures in the current output, without repeats."""
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
            first_ns=self.first_ns or later.first_ns,
            control=summed(self.control, later.control),
            latency=summed(self.latency, later.latency),
            age=summed(self.age, later.age),
            notes=list(dict.fromkeys([*self.notes, *later.notes])),
        )


class Report(_Part, frozen=True):
    """Figures of a worker: of its stages, and of the sources and sinks among them by the name of the stage."""

    worker: str
    runners: list[RunnerReport]
    sources: dict[str, SourceReport]
    sinks: dict[str, SinkReport]

    @property
    def ended(self) -> bool:
        """Every stage has handled the end of the stream."""
        return all(runner.ended for runner in self.runners)

    @property
    def newest(self) -> int:
        """Number of the newest frame that any stage has handled, -1 before the first."""
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
    """The sum of encoded histograms, encoded. Empty texts are none."""
    whole = Meter()
    for encoded in filter(None, meters):
        whole += Meter.decode(encoded)
    return whole.encode()


def _added(before: Mapping[str, T], later: Mapping[str, T]) -> dict[str, T]:
    """The entries of `later`, each added to the entry of the same name in `before`."""
    return {name: before[name] + figures if name in before else figures for name, figures in later.items()}


class Setup(NamedTuple):
    """The parts of `Stats` that are fixed when a run is opened. size, shown: (width, height) of networks and output."""

    backend: str
    precision: str
    device: str
    bundle: str
    size: tuple[int, int]
    shown: tuple[int, int]
    steps: int


_NO_SINK = SinkReport(0, 0, -1, 0, 0, False, Meter().encode(), Meter().encode(), [])


def stats_of(
    reports: Sequence[Report],
    setup: Setup,
    *,
    failed: int = 0,
    restarts: int = 0,
    warnings: tuple[str, ...] = (),
    begun_ns: int = 0,
) -> Stats:
    """The figures of a run.

    reports   one for each worker
    failed    frames dropped because a stage raised
    begun_ns  clock when the run began to be opened
    """
    sources = [source for r in reports for source in r.sources.values()]
    sinks = {name: sink for r in reports for name, sink in r.sinks.items()}
    runners = {runner.name: runner for r in reports for runner in r.runners}
    links = {name: link for runner in runners.values() for name, link in runner.links.items()}
    first = sinks.get("sink_1", _NO_SINK)
    frames, drops = counted(sources, first, sum(link.dropped for link in links.values()), failed)
    notes = [source.warning for source in sources if source.warning] + [n for s in sinks.values() for n in s.notes]
    return Stats(
        frames=frames,
        drops=drops,
        seconds=_seconds(sources, sinks.values()),
        latency=Meter.decode(first.latency),
        age=Meter.decode(first.age),
        control=Meter.decode(first.control) if first.control else Meter(),
        first_picture_s=(first.first_ns - begun_ns) / 1e9 if first.first_ns else None,
        stages={name: Meter.decode(runner.meter) for name, runner in runners.items()},
        links={name: {"sent": link.sent, "peak": link.peak, "slots": link.slots} for name, link in links.items()},
        hops={name: Meter.decode(hop) for runner in runners.values() for name, hop in runner.hops.items()},
        restarts=restarts,
        warnings=(*warnings, *notes),
        source=next((source.figures for source in sources), {}),
        source_lost=next((source.lost for source in sources if source.lost), None),
        **setup._asdict(),
    )


class SinkCounts(Protocol):
    """The counts of a sink that `counted` needs: of its report, or of the sink itself, which costs less to read."""

    @property
    def frames(self) -> int:
        """Pictures written."""

    @property
    def held(self) -> int:
        """Pictures written for which no network ran."""

    @property
    def shown(self) -> int:
        """Number of the newest frame written, -1 before the first."""

    @property
    def repeated(self) -> int:
        """Pictures written again."""

    @property
    def complete(self) -> bool:
        """Whether the sink has ended."""


def counted(
    sources: Sequence[SourceReport], sink: SinkCounts, dropped: int, failed: int
) -> tuple[FrameCounts, dict[str, int]]:
    """Counts of frames, and of dropped frames by reason. dropped: by links; failed: at a stage that raised.

    Note: figures of different moments. The reports of source and sink are not taken at the same time, so a sink's may
    include a frame that the source's does not have yet. The counts therefore follow from two facts that always hold:
    every picture shown was read, and every frame read was shown, was dropped or is under way.
    """
    new = max(0, sink.frames - sink.repeated)
    into = max(sum(source.reached for source in sources), sink.shown + 1, new)
    missing = into - new
    paused = min(sum(source.paused for source in sources), missing)
    failed = min(failed, missing - paused)
    # A restarted source reuses the numbers of frames that the lost one had dropped. Such frames must not count twice.
    late = max(0, sum(source.dropped - source.paused for source in sources) + dropped)
    late = min(late, missing - paused - failed)
    gone = missing - paused - failed - late
    # Frames newer than the last one shown are still under way, unless the sink has ended.
    under_way = 0 if sink.complete else min(gone, into - 1 - sink.shown)
    drops = {"late": late, "paused": paused, "failed": failed, "restart": gone - under_way}
    return FrameCounts(into, sink.frames, missing - under_way, sink.repeated, sink.held, under_way), drops


def _seconds(sources: Iterable[SourceReport], sinks: Iterable[SinkReport]) -> float:
    """Seconds from the first read to the last picture written; 0 before that.

    A sink's report may have its first picture before a source's report has its first read, so both are looked at.
    """
    shown = [sink for sink in sinks if sink.ended_ns]
    read = [source.started_ns for source in sources] + [sink.begun_ns for sink in shown]
    started = min(filter(None, read), default=0)
    ended = max((sink.ended_ns for sink in shown), default=0)
    return (ended - started) / 1e9 if ended > started > 0 else 0.0
