"""Law: times increase strictly whatever the container says, and are exact where it says something usable."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.sources.times import PacketTimes, Times, told

TICK = Fraction(1, 1000)


def test_good_times_pass_exactly():
    times = Times(Fraction(1, 30000), 15, Fraction(30000, 1001))
    assert [times(15 + 1001 * i) for i in range(4)] == [0, 33366667, 66733333, 100100000]
    assert times.mended == 0


@pytest.mark.parametrize(
    ("told", "ms", "mended"),
    [
        ([None, None, None], [0, 40, 80], 3),
        ([0, None, 90, None], [0, 40, 90, 130], 2),
        ([0, 40, 40, 80], [0, 40, 41, 80], 1),
        ([0, 40, 20, 60], [0, 40, 41, 60], 1),
        ([100, 0, 40], [100, 101, 102], 2),
    ],
)
def test_bad_times_are_mended_and_counted(told: list[int | None], ms: list[int], mended: int):
    times = Times(TICK, 0, Fraction(25))
    assert [times(pts) for pts in told] == [m * 10**6 for m in ms]
    assert times.mended == mended


RATE = 90_000
FRAME = RATE // 25


def join(parts: list[tuple[int, int]], starts_anew: bool = True) -> tuple[list[int], list[int], PacketTimes]:
    """(times of the pictures, of the sound, what mended them) of parts that begin at a tick and hold so many frames."""
    clock = Fraction(1, RATE)
    times = PacketTimes({0: (clock, FRAME), 1: (clock, FRAME)}, starts_anew)
    out: tuple[list[int], list[int]] = ([], [])
    for start, count in parts:
        for number in range(count):
            for index in (0, 1):
                tick = start + number * FRAME
                pts, _ = times(index, tick, tick, FRAME)
                out[index].append(pts)
    return *out, times


@pytest.mark.parametrize("second", [0, 20 * FRAME, 3600 * RATE, (1 << 33) - 5, -50 * RATE])
def test_a_clock_that_starts_anew_goes_on_evenly(second: int):
    pictures, sound, times = join([(1000, 50), (second, 50)])
    assert pictures == sound == [1000 + number * FRAME for number in range(100)]
    (jump,) = times.jumps
    assert jump.at == 2 and jump.by == Fraction(second - 1000 - 50 * FRAME, RATE)
    assert f"{float(jump.by):+.1f} s at 2.0 s" in told(times.jumps)


@pytest.mark.parametrize("behind", [1, 20])
@pytest.mark.parametrize("second", [0, 3600 * RATE])
def test_streams_that_come_to_a_joint_one_after_the_other_stay_together(second: int, behind: int):
    """The sound lies so many packets behind its picture in the file."""
    clock = Fraction(1, RATE)
    times = PacketTimes({0: (clock, FRAME), 1: (clock, FRAME)}, starts_anew=True)
    told = [number * FRAME for number in range(50)] + [second + number * FRAME for number in range(50)]
    out: tuple[list[int], list[int]] = ([], [])
    for turn in range(100 + behind):
        for index, number in ((0, turn), (1, turn - behind)):
            if 0 <= number < 100:
                out[index].append(times(index, told[number], told[number], FRAME)[0])
    assert out[0] == out[1] == [number * FRAME for number in range(100)]
    assert len(times.jumps) == 1


def test_a_jump_of_the_sound_alone_is_one_jump_and_moves_no_picture():
    clock = Fraction(1, RATE)
    times = PacketTimes({0: (clock, FRAME), 1: (clock, FRAME)}, starts_anew=True)
    for number in range(500):
        tick = number * FRAME
        assert times(0, tick, tick, FRAME) == (tick, tick)
        told = tick + 100 * RATE * (number >= 50)
        assert times(1, told, told, FRAME) == (tick, tick)
    assert len(times.jumps) == 1


def test_a_stream_whose_jump_is_too_small_to_see_follows_the_others():
    """The picture runs back by 0.6 s, the sound, which was shorter, by 0.08 s: yet the second part is one recording."""
    clock = Fraction(1, RATE)
    times = PacketTimes({0: (clock, FRAME), 1: (clock, FRAME)}, starts_anew=True)
    for number in range(50):
        for index in (0, 1) if number < 37 else (0,):
            times(index, number * FRAME, number * FRAME, FRAME)
    out: tuple[list[int], list[int]] = ([], [])
    for number in range(35, 135):
        for index in (0, 1):
            out[index].append(times(index, number * FRAME, number * FRAME, FRAME)[0])
    assert out[0][50:] == out[1][50:]


@pytest.mark.parametrize("longer", [0, 2, 10])
def test_picture_and_sound_of_a_part_lie_as_the_file_has_them(longer: int):
    """The sound of the first part is so many packets longer than its picture."""
    clock = Fraction(1, RATE)
    times = PacketTimes({0: (clock, FRAME), 1: (clock, FRAME)}, starts_anew=True)
    first = [(index, number) for number in range(50 + longer) for index in (0, 1) if index or number < 50]
    second = [(index, number) for number in range(50) for index in (0, 1)]
    for index, number in first:
        times(index, number * FRAME, number * FRAME, FRAME)
    out: tuple[list[int], list[int]] = ([], [])
    for index, number in second:
        out[index].append(times(index, number * FRAME, number * FRAME, FRAME)[0])
    assert out[0][1:] == out[1][1:]


@pytest.mark.parametrize("gap", [FRAME, 5 * RATE, 10 * RATE])
def test_a_gap_in_the_picture_is_kept(gap: int):
    pictures, _, times = join([(0, 50), (50 * FRAME + gap, 50)])
    assert pictures[50] - pictures[49] == FRAME + gap and told(times.jumps) is None


def test_a_format_whose_clock_does_not_start_anew_means_what_it_says():
    pictures, _, times = join([(0, 50), (3600 * RATE, 50), (0, 50)], starts_anew=False)
    assert pictures[50] == 3600 * RATE and pictures[100] == 0 and not times.jumps
    absurd, _, _ = join([(0, 50), (1 << 50, 1), (51 * FRAME, 50)], starts_anew=False)
    assert absurd[50] is None and absurd[51] == 51 * FRAME


def test_a_stream_that_begins_on_another_clock_is_laid_beside_the_others():
    clock = Fraction(1, RATE)
    times = PacketTimes({0: (clock, FRAME), 1: (clock, FRAME)}, starts_anew=True)
    times(0, 0, 0, FRAME)
    assert times(1, 7200 * RATE, 7200 * RATE, FRAME) == (0, 0)
    assert times.shift(1) == -7200 and times.shift(0) == 0


ticks = st.none() | st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(st.tuples(st.integers(0, 1), ticks, ticks, st.none() | st.integers(0, 1 << 40))))
def test_mended_times_never_leap_nor_run_back(packets):
    times = PacketTimes({0: (Fraction(1, RATE), FRAME), 1: (TICK, 40)}, starts_anew=True)
    last: dict[int, int] = {}
    for index, pts, dts, duration in packets:
        pts, dts = times(index, pts, dts, duration)
        assert all(tick is None or abs(tick) < 1 << 63 for tick in (pts, dts))
        if dts is not None and index in last:
            assert dts >= last[index] - (RATE, 1000)[index] // 10
        if dts is not None:
            last[index] = dts


@given(st.lists(st.tuples(ticks, ticks), min_size=2))
def test_frames_of_any_times_at_all_come_in_order(told):
    times = Times(TICK, 0, Fraction(25))
    out = [times(pts, dts) for pts, dts in told]
    assert all(after > before for before, after in pairwise(out))


def test_frames_without_presentation_times_have_those_of_decoding():
    times = Times(TICK, 0, Fraction(25))
    assert [times(None, 40 * number) for number in range(4)] == [0, 40 * 10**6, 80 * 10**6, 120 * 10**6]
    assert times.mended == 0
