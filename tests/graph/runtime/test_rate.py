"""Ticks are numbers: no clock runs here but the test's own."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.graph.runtime.rate import Paced, Resampled, ticks_before
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.timing import tick_ns

RATES = st.fractions(min_value=1, max_value=240, max_denominator=1001)


def frame(seq, pts_ns):
    return RawFrame(Stamp(seq, pts_ns, arrived_ns=seq + 1), np.full((2, 2, 3), seq % 256, np.uint8))


def resampled(times, fps):
    shown = []
    rate = Resampled(lambda f: shown.append((f.stamp.seq, f.stamp.pts_ns, int(f.rgb[0, 0, 0]))), Fraction(fps))
    for seq, pts_ns in enumerate(times):
        rate.take(frame(seq, pts_ns))
    rate.end()
    return shown, rate


@given(RATES, st.integers(0, 10_000))
def test_a_picture_at_its_tick_comes_after_the_ticks_before_it(fps, k):
    assert ticks_before(tick_ns(k, fps), 0, fps) == k


@given(RATES, st.integers(1, 200))
def test_at_the_sources_own_rate_every_picture_is_shown_once(fps, frames):
    shown, rate = resampled([tick_ns(k, fps) for k in range(frames)], fps)
    assert [picture for _, _, picture in shown] == [k % 256 for k in range(frames)] and rate.repeated == 0


@given(st.lists(st.integers(1, 200_000_000), min_size=1, max_size=60), RATES)
def test_ticks_have_no_gap_and_each_shows_the_newest_picture_of_its_time(steps, fps):
    times = [sum(steps[:i]) for i in range(len(steps))]
    shown, rate = resampled(times, fps)
    assert [(k, pts) for k, pts, _ in shown] == [(k, tick_ns(k, fps)) for k in range(len(shown))]
    pictures = [picture for _, _, picture in shown]
    assert pictures == sorted(pictures) and len(shown) == max(
        1, ticks_before(times[-1] + (steps[-2:-1] or [0])[0], 0, fps)
    )
    for _, pts, picture in shown:
        assert times[picture] <= pts + 1000 and (picture + 1 == len(times) or times[picture + 1] >= pts - 1000)
    assert rate.repeated == len(pictures) - len(set(pictures))


def test_a_paced_sink_repeats_while_nothing_comes_and_raises_what_the_sink_raised():
    now, shown, enough = [0], [], threading.Event()

    def hand_over(f):
        shown.append((f.stamp.seq, int(f.rgb[0, 0, 0])))
        now[0] += 40_000_000  # the clock moves by one tick with every picture
        if len(shown) == 5:
            enough.set()
            raise OSError("unplugged")

    rate = Paced(hand_over, Fraction(25), lambda: now[0])
    rate.take(frame(9, 0))
    assert enough.wait(10)
    with pytest.raises(OSError, match="unplugged"):
        rate.end()
    assert [picture for _, picture in shown] == [9] * 5 and rate.repeated == 3
    numbers = [k for k, _ in shown]
    assert numbers == sorted(set(numbers))


def test_what_a_paced_sink_took_before_its_end_is_shown():
    for number in range(200):
        shown = []
        rate = Paced(lambda f, into=shown: into.append(int(f.rgb[0, 0, 0])), Fraction(1000), time.monotonic_ns)
        rate.take(frame(1, 0))
        if number % 2:
            rate.take(frame(2, 0))
        rate.end()
        assert shown[-1] == (2 if number % 2 else 1)
