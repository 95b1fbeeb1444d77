from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.sources.live_times import LiveTimes

MS = 1_000_000
jitter = st.lists(st.integers(0, 90 * MS), min_size=2, max_size=60)


@given(jitter)
def test_a_steady_sender_has_steady_times_whatever_the_network_does(late):
    times = LiveTimes()
    out = [times(7000 * MS + k * 40 * MS, k * 40 * MS + by) for k, by in enumerate(late)]
    assert {after - before for before, after in pairwise(out)} == {40 * MS}


@given(st.lists(st.tuples(st.none() | st.integers(-(10**15), 10**15), st.integers(0, 10**10)), min_size=2))
def test_any_times_at_all_come_out_rising_and_near_the_clock(told):
    times, now, out = LiveTimes(), 0, []
    for sent, later in told:
        now += later
        out.append(times(sent, now))
        first = first if len(out) > 1 else now  # noqa: F821  (set in the first round)
        assert out[-1] - (now - first) <= 500 * MS + len(out) * MS
    assert out[0] == 0 and all(after > before for before, after in pairwise(out))


def test_a_drifting_clock_never_leads_far_away():
    times = LiveTimes()
    for k in range(200_000):
        now = k * 40 * MS
        assert abs(times(round(k * 40.04 * MS), now) - now) <= 501 * MS  # 0.1 % fast: 8 s in the end, uncorrected


def test_another_connection_starts_its_own_clock():
    times = LiveTimes(None)
    times(90_000 * MS, 0)
    times.restart()
    assert times(5 * MS, 1000 * MS) == 1000 * MS


def test_a_clip_keeps_its_times_however_fast_it_is_read():
    times = LiveTimes(None)
    assert [times(k * 40 * MS, k) for k in range(100)] == [k * 40 * MS for k in range(100)]
