"""Law: times increase strictly whatever the container says, and are exact where it says something usable."""

from fractions import Fraction

import pytest

from warpfuse.stages.sources.times import Times

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
