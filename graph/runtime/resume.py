"""Where a run resumes after an epoch that was broken off."""

from collections.abc import Sequence

from warpfuse.graph.metrics.report import Report
from warpfuse.graph.runtime.source_runner import ResumePoint


def resume_after(
    reports: Sequence[Report],
    without: frozenset[int],
    *,
    rewind: bool,
    sinks: Sequence[str],
    first: bool = False,
) -> ResumePoint:
    """Where the source resumes.

    reports  figures of the workers until now
    without  frames not to be sent again
    rewind   the source is a file. It resumes at the first frame that some sink lacks, and sinks skip the frames they
             have. A live source resumes after the newest frame that any stage has seen
    sinks    names of all sinks; a sink without a report has no frames
    first    nothing has run yet
    """
    if first:
        return ResumePoint()
    since = max((source.since_ns for r in reports for source in r.sources.values()), default=0)
    told = {name: sink for r in reports for name, sink in r.sinks.items()}
    open_ends = [name for name in sinks if name not in told or not told[name].complete]
    shown = [told[name].shown if name in told else -1 for name in open_ends]
    done = min((told[name].done if name in told else 0 for name in open_ends), default=0)
    newest = max((report.newest for report in reports), default=-1)
    reached = max((source.reached for r in reports for source in r.sources.values()), default=0)
    start = min(shown, default=newest) + 1 if rewind else max(newest + 1, reached)
    return ResumePoint(start, without, since or 1, done)
