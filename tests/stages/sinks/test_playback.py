from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.stage import VideoInfo

RGB = np.zeros((2, 2, 3), np.uint8)
LIVE = VideoInfo(2, 2, Fraction(25), Fraction(1, 1000), None, live=True)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), max_size=50))
def test_the_times_of_a_live_stream_only_go_forward_and_stay_near_the_clock(frames: list[tuple[int, int]]) -> None:
    now, last = 0, 0
    playback = Playback(LIVE, lambda: now)
    for seq, (pts_ns, passed_ns) in enumerate(frames):
        now += passed_ns
        due_ns = playback.due(RawFrame(Stamp(seq, pts_ns), RGB))
        assert last < due_ns <= max(now + 500_000_000, last + 1)
        last = due_ns


def test_a_slow_stream_may_be_four_periods_away() -> None:
    now = 0
    playback = Playback(VideoInfo(2, 2, Fraction(1), Fraction(1, 1000), None, live=True), lambda: now)
    playback.due(RawFrame(Stamp(0, 0), RGB))
    assert playback.due(RawFrame(Stamp(1, 4_000_000_000), RGB)) == 4_000_000_000
    assert playback.due(RawFrame(Stamp(2, 8_100_000_000), RGB)) == 4_000_000_001, "control: laid on now, 0"
