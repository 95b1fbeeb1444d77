"""The figures of a run add up at every moment, whatever order its parts are asked in."""

import random
from dataclasses import replace

import pytest

from warpfuse.graph.metrics.meters import Meter
from warpfuse.graph.metrics.report import Report, Setup, SinkReport, SourceReport, stats_of

EMPTY = Meter().encode()
SETUP = Setup("onnxruntime", "float", "cpu", "exact", (96, 64), (96, 64), 1)
S = 1_000_000_000


def told(source, sink, failed=0):
    """The figures of a run whose workers have told of a source and of a sink."""
    reports = [Report("capture", [], {"source": source}, {}), Report("show", [], {}, {"sink_1": sink})]
    return stats_of(reports, SETUP, failed=failed)


def source(reached, dropped=0, paused=0):
    return SourceReport(reached, dropped, S, S, None, paused=paused)


def sink(frames, shown, *, repeated=0, ended_ns=0, complete=False):
    return SinkReport(frames, 0, shown, repeated, ended_ns, complete, EMPTY, EMPTY, [])


def adds_up(stats):
    frames = stats.frames
    assert frames.into + frames.repeated == frames.out + frames.dropped + frames.under_way
    assert frames.dropped == sum(stats.drops.values())
    assert min(frames.dropped, frames.under_way, *stats.drops.values()) >= 0
    return frames


@pytest.mark.parametrize("complete", [False, True])
def test_frames_that_came_in_are_out_or_dropped_or_under_way_whatever_was_told_when(complete):
    numbers = random.Random(0)
    for _ in range(3000):
        reached, shown = numbers.randrange(200), numbers.randrange(-1, 200)
        written = numbers.randrange(shown + 2)
        late, paused, repeated = (numbers.randrange(40) for _ in range(3))
        stats = told(
            source(reached, late + paused, paused),
            sink(written + repeated, shown, repeated=repeated, complete=complete),
            failed=numbers.randrange(3),
        )
        frames = adds_up(stats)
        assert frames.out == written + repeated and frames.into >= max(reached, shown + 1)
        assert not (complete and frames.under_way)


def test_what_was_shown_was_read_although_the_source_has_not_told_of_it_yet():
    frames = adds_up(told(source(10), sink(14, 13)))
    assert (frames.into, frames.out, frames.dropped) == (14, 14, 0), "it was: dropped -4"


def test_a_run_has_a_time_although_the_source_has_not_told_of_it_yet():
    first = SinkReport(8, 0, 7, 0, 5 * S, False, EMPTY, EMPTY, [], begun_ns=3 * S)
    assert told(SourceReport(0, 0, 0, 0, None), first).seconds == 2.0
    assert told(SourceReport(9, 0, 1 * S, 0, None), first).seconds == 4.0, "from the first read, once that is known"


def test_frames_behind_the_newest_that_was_shown_are_under_way_and_those_before_it_are_lost():
    frames = adds_up(told(source(20), sink(12, 14)))
    assert (frames.under_way, frames.dropped) == (5, 3)
    frames = adds_up(told(source(20), sink(12, 14, complete=True)))
    assert (frames.under_way, frames.dropped) == (0, 8)


def test_a_run_under_way_has_a_time_and_a_rate():
    stats = told(source(50), sink(40, 39, ended_ns=5 * S))
    assert (stats.seconds, stats.fps) == (4.0, 10.0)
    assert told(source(0), sink(0, -1)).fps == 0


def test_the_share_of_dropped_frames_is_of_those_that_were_wanted():
    """Frames that come in a pause are dropped by whoever paused the run."""
    stats = told(source(100, 40, 20), sink(60, 99, ended_ns=5 * S))
    assert (stats.frames.dropped, stats.drops["paused"], stats.dropped_share) == (40, 20, 0.25)
    assert told(source(0), sink(0, -1)).dropped_share == 0
    assert told(source(7, 7, 7), sink(0, -1)).dropped_share == 0


def test_figures_of_streams_tell_the_longest_wait_for_a_first_picture():
    early, late, none = (replace(told(source(1), sink(1, 0)), first_picture_s=s) for s in (1.5, 4.0, None))
    assert (early + late).first_picture_s == (late + early).first_picture_s == (late + none).first_picture_s == 4.0
    assert (none + none).first_picture_s is None
