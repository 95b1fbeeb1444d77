"""The figures of a moment are those of the last two seconds."""

import pytest

from warpfuse.web.figures import Moment, Recent

S = 1_000_000_000


def test_a_steady_rate_is_told_as_it_is():
    recent = Recent()
    for frame in range(100):
        recent.add(10 * S + frame * S // 25, 40_000_000)
    moment = recent.at(10 * S + 99 * S // 25)
    assert moment.fps == pytest.approx(25, abs=0.6)
    assert (moment.p50, moment.p95, moment.newest) == (40, 40, 40)


def test_the_first_frames_are_not_taken_for_a_slow_start():
    recent = Recent()
    for frame in range(5):
        recent.add(10 * S + frame * S // 25, 1)
    assert recent.at(10 * S + 4 * S // 25).fps == 25


def test_what_is_older_than_two_seconds_is_forgotten():
    recent = Recent()
    recent.add(10 * S, 5 * S)
    for frame in range(20):
        recent.add(13 * S + frame * S // 20, 1_000_000 * (frame + 1))
    moment = recent.at(14 * S)
    assert (moment.p50, moment.p95, moment.newest) == (11, 20, 20)
    assert recent.at(20 * S) == Moment() == Recent().at(5)
