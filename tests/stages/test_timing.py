"""Pure functions of numbers: clocks, pauses, ticks. No clock runs here."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.timing import Backoff, ClockMap, Ticker, doubled_s

MS = 1_000_000
S = 1000 * MS


def test_times_keep_their_distances_whenever_they_arrive() -> None:
    due = ClockMap(500 * MS, 500 * MS)
    late = [0, 30, 5, 90, 12, 0]
    times = [due(i * 40 * MS, 7 * S + i * 40 * MS + late[i] * MS) for i in range(6)]
    assert times == [7 * S + i * 40 * MS for i in range(6)] and due.moved == 0


@pytest.mark.parametrize("away", [-5 * S, 5 * S])
def test_a_clock_that_leaps_is_laid_on_now_and_goes_on_from_there(away: int) -> None:
    due, unbounded = ClockMap(500 * MS, 500 * MS), ClockMap()
    due(0, 0), unbounded(0, 0)
    assert due(40 * MS + away, 40 * MS) == 40 * MS
    assert due(80 * MS + away, 90 * MS) == 80 * MS
    assert due.moved == 1
    assert unbounded(40 * MS + away, 40 * MS) == 40 * MS + away, "control"


def test_each_side_has_its_own_bound() -> None:
    due = ClockMap(late_ns=1 * S, early_ns=60 * S)
    due(0, 0)
    assert due(50 * S, 0) == 50 * S and due(50 * S, 51 * S) == 50 * S and due.moved == 0
    assert due(50 * S, 52 * S) == 52 * S and due(200 * S, 52 * S) == 52 * S and due.moved == 2


def test_another_clock_is_laid_on_now() -> None:
    due = ClockMap()
    due(90 * S, 0)
    due.restart()
    assert due(5 * MS, 1 * S) == 1 * S and due.moved == 0


def test_an_hour_of_a_clock_that_is_wrong_by_a_thousandth_never_falls_behind() -> None:
    due = ClockMap(500 * MS, 500 * MS)
    for i in range(90_000):
        now = i * 40 * MS
        assert abs(due(now * 1001 // 1000, now) - now) <= 500 * MS
    assert due.moved > 0, "control: 3.6 s in the end, unmended"


def test_a_burst_is_shown_at_its_own_spacing() -> None:
    due, now, shown = ClockMap(1 * S, 60 * S), 0, []
    for segment in range(3):
        now = max(now, segment * 2 * S)  # 50 pictures at once, every two seconds
        for k in range(50):
            now = max(now, due((segment * 50 + k) * 40 * MS, now))
            shown.append(now)
    assert {after - before for before, after in pairwise(shown)} == {40 * MS}


def test_a_late_burst_is_shown_from_its_first_picture_on() -> None:
    due = ClockMap(1 * S, 60 * S)
    assert [due(0, 0), due(40 * MS, 5 * S), due(80 * MS, 5 * S)] == [0, 5 * S, 5 * S + 40 * MS]


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
    ticker = Ticker(Fraction(30000, 1001), start_ns=5)
    now = 0
    for tick in range(100_000):
        due = ticker.next(now)
        assert due == 5 + round(tick * Fraction(1001, 30000) * 10**9)
        now = due + 3 * MS  # the work of each tick
    assert ticker.skipped == 0


def test_a_pause_is_skipped_and_not_made_up_for() -> None:
    ticker = Ticker(Fraction(100), start_ns=0)
    assert [ticker.next(now * MS) for now in (0, 1, 57, 58)] == [0, 10 * MS, 50 * MS, 60 * MS]
    assert ticker.skipped == 3


@pytest.mark.parametrize(("now_ms", "tick"), [(0, 5), (100, 5), (200, 5), (239, 5), (241, 6), (1000, 25)])
def test_a_tick_is_left_out_when_the_next_ones_time_is_over_too(now_ms: int, tick: int) -> None:
    ticker = Ticker(Fraction(25), start_ns=0)
    for _ in range(5):
        ticker.next(0)
    assert ticker.next(now_ms * MS) == tick * 40 * MS
    assert (ticker.tick, ticker.skipped) == (tick, tick - 5)
