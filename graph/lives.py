"""The figures of a worker over several lives: what the one before it had counted is added to what this one tells."""

from collections.abc import Mapping, Sequence

import msgspec

from warpfuse.graph.meters import Meter
from warpfuse.graph.report import LinkReport, Report, RunnerReport, SinkReport, SourceReport


def combined(before: Mapping[str, Report], now: Report) -> Report:
    """The report of a worker that was restarted, with what the one before it had counted."""
    old = before.get(now.worker)
    if old is None:
        return now
    was = {runner.name: runner for runner in old.runners}
    return msgspec.structs.replace(
        now,
        runners=[_plus(was[r.name], r) if r.name in was else r for r in now.runners],
        sources={name: _plus_source(old.sources.get(name), s) for name, s in now.sources.items()},
        sinks={name: _plus_sink(old.sinks.get(name), s) for name, s in now.sinks.items()},
    )


def merged(meters: Sequence[str]) -> Meter:
    """One histogram of several."""
    whole = Meter()
    for encoded in meters:
        whole.add(Meter.decode(encoded))
    return whole


def _plus(a: RunnerReport, b: RunnerReport) -> RunnerReport:
    links = dict(a.links)
    for name, link in b.links.items():
        old = links.get(name, LinkReport(link.slots, 0, 0, 0))
        links[name] = msgspec.structs.replace(
            link, sent=old.sent + link.sent, peak=max(old.peak, link.peak), dropped=old.dropped + link.dropped
        )
    return msgspec.structs.replace(
        b,
        frames=a.frames + b.frames,
        passed=max(a.passed, b.passed),
        meter=merged([a.meter, b.meter]).encode(),
        links=links,
        hops={name: merged([a.hops[name], hop]).encode() if name in a.hops else hop for name, hop in b.hops.items()},
    )


def _plus_source(a: SourceReport | None, b: SourceReport) -> SourceReport:
    if a is None:
        return b
    return SourceReport(
        max(a.reached, b.reached),
        a.dropped + b.dropped,
        a.started_ns or b.started_ns,
        a.since_ns or b.since_ns,
        b.warning or a.warning,
        b.figures or a.figures,
        b.lost or a.lost,
        a.paused + b.paused,
    )


def _plus_sink(a: SinkReport | None, b: SinkReport) -> SinkReport:
    if a is None:
        return b
    return msgspec.structs.replace(
        b,
        frames=a.frames + b.frames,
        held=a.held + b.held,
        shown=max(a.shown, b.shown),
        repeated=a.repeated + b.repeated,
        abandoned=a.abandoned + b.abandoned,
        latency=merged([a.latency, b.latency]).encode(),
        age=merged([a.age, b.age]).encode(),
        notes=list(dict.fromkeys([*a.notes, *b.notes])),
    )
