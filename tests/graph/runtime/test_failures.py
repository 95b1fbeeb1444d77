"""Which failures end a run."""

import pytest

from warpfuse.graph.runtime.failures import Faults, StageFault, Streak
from warpfuse.stages.errors import SourceLost


def test_five_in_a_row_end_the_run():
    streak = Streak()
    assert [streak.ends_the_run("decode", seq, 2) for seq in range(3, 8)] == [False] * 4 + [True]


def test_a_newer_frame_that_got_through_begins_the_row_anew():
    streak = Streak()
    assert not any(streak.ends_the_run("decode", seq, seq - 1) for seq in range(0, 100, 2))


def test_older_frames_that_are_read_again_prove_nothing():
    """A file goes on at frame 1 after every failure: frames 1 and 2 pass each time."""
    streak = Streak()
    assert [streak.ends_the_run("decode", 3, 2) for _ in range(5)] == [False] * 4 + [True]


def test_stages_are_counted_apart():
    streak = Streak()
    for seq in range(4):
        assert not streak.ends_the_run("decode", seq, -1) and not streak.ends_the_run("warp", seq, -1)


@pytest.mark.parametrize(
    "fault",
    [
        StageFault("source", SourceLost("gone"), 5, 4),
        StageFault("source", RuntimeError("at no frame")),
        StageFault("decode", KeyboardInterrupt(), 5, 4),
    ],
)
def test_losses_and_failures_without_a_frame_end_it_at_once(fault):
    faults = Faults(allowed=5)
    assert not faults.spared(fault) and faults.error is fault.error


def test_the_first_error_that_ends_the_run_is_kept():
    faults = Faults()
    first, second = ValueError("cause"), ValueError("consequence")
    assert not faults.spared(StageFault("a", first, 1)) and not faults.spared(StageFault("b", second, 1))
    assert (faults.stage, faults.error) == ("a", first)


def test_what_was_spared_is_taken_once_and_said():
    said = []
    faults = Faults(allowed=5, changed=lambda: said.append(1))
    fault = StageFault("decode", ValueError("x"), 3, 2)
    assert faults.spared(fault) and said == [1]
    assert faults.take() == [fault] and faults.take() == []
