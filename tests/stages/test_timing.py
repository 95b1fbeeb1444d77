"""Pure functions of numbers: timeline, back-off, cadence. No clock runs here."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.sinks.cadence import Cadence, choose
from warpfuse.stages.sinks.timeline import Timeline
from warpfuse.stages.timing import Backoff, doubled_s

MS = 1_000_000
S = 1000 * MS


def test_frames_keep_the_distances_of_their_source_whenever_they_arrive() -> None:
    timeline = Timeline(40 * MS)
    late = [0, 30, 5, 90, 12, 0]
    due = [timeline.due(i * 40 * MS, 7 * S + i * 40 * MS + late[i] * MS) for i in range(6)]
    assert due == [7 * S + i * 40 * MS for i in range(6)]


@pytest.mark.parametrize("away", [-5 * S, 5 * S])
def test_an_interrupted_source_goes_on_from_now(away: int) -> None:
    timeline = Timeline(40 * MS)
    timeline.due(0, 0)
    assert timeline.due(40 * MS + away, 40 * MS) == 40 * MS
    assert timeline.due(80 * MS + away, 80 * MS) == 80 * MS
    assert timeline.moved == 1


def test_an_hour_of_a_clock_that_is_wrong_by_a_thousandth_never_falls_behind() -> None:
    timeline = Timeline(40 * MS)
    for i in range(90_000):
        now = i * 40 * MS
        assert abs(timeline.due(now * 1001 // 1000, now) - now) <= 500 * MS


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), max_size=50))
def test_times_only_go_forward(frames: list[tuple[int, int]]) -> None:
    timeline, now, last = Timeline(40 * MS), 0, -1
    for pts, passed in frames:
        now += passed
        due = timeline.due(pts, now)
        assert due > last
        last = due


def test_pauses_double_up_to_a_bound_and_start_anew() -> None:
    backoff = Backoff(0.5, 30, lambda: 1.0)
    assert [backoff.failed() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.failed() == 0.5
    assert doubled_s(10**9, 0.5, 30) == 30, "a connection that fails for years"


@given(st.floats(0, 1), st.integers(0, 40))
def test_a_pause_is_a_tenth_to_the_whole_of_its_bound(chance: float, before: int) -> None:
    backoff = Backoff(0.5, 30, lambda: chance)
    for _ in range(before):
        backoff.failed()
    assert backoff.failed() == pytest.approx((0.1 + 0.9 * chance) * min(30, 0.5 * 2**before))


def test_deadlines_do_not_drift() -> None:
    cadence = Cadence(Fraction(30000, 1001), start_ns=5)
    now = 0
    for tick in range(100_000):
        due = cadence.next(now)
        assert due == 5 + round(tick * Fraction(1001, 30000) * 10**9)
        now = due + 3 * MS  # the work of each tick
    assert cadence.skipped == 0


def test_a_pause_is_skipped_and_not_made_up_for() -> None:
    cadence = Cadence(Fraction(100), start_ns=0)
    assert [cadence.next(now * MS) for now in (0, 1, 57, 58)] == [0, 10 * MS, 50 * MS, 60 * MS]
    assert cadence.skipped == 3


@pytest.mark.parametrize(
    ("on_fault", "styled", "raw", "shown"),
    [
        ("hold", 9.9, None, "styled"),
        ("hold", 5.0, 9.9, "held"),
        ("hold", None, 9.9, "held"),
        ("passthrough", 9.9, 9.9, "styled"),
        ("passthrough", 5.0, 9.9, "raw"),
        ("passthrough", None, 9.9, "raw"),
        ("passthrough", 5.0, 5.0, "held"),
        ("passthrough", None, None, "held"),
    ],
)
def test_what_is_shown(on_fault: str, styled: float | None, raw: float | None, shown: str) -> None:
    came = [None if seconds is None else int(seconds * S) for seconds in (styled, raw)]
    assert choose(on_fault, 40 * MS, 10 * S, *came) == shown  # type: ignore[arg-type]
