"""A recording that begins again: one stream without gaps, whose laps are told apart."""

import itertools

import pytest
from support.machines import Counting

from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run
from warpfuse.graph.runtime.realtime import Looped


def test_numbers_and_times_go_on_and_each_lap_is_a_discontinuity():
    opened = []

    def once():
        opened.append(Counting(3))
        return opened[-1]

    source = Looped(once)
    frames = [source.read() for _ in range(7)]
    stamps = [frame.stamp for frame in frames]
    assert [stamp.seq for stamp in stamps] == list(range(7))
    assert [stamp.discontinuity for stamp in stamps] == [False, False, False, True, False, False, True]
    gaps = {later.pts_ns - earlier.pts_ns for earlier, later in itertools.pairwise(stamps)}
    assert gaps == {round(1e9 / source.info.fps)}
    assert [one.closed for one in opened] == [True, True, False]
    source.close()
    assert opened[-1].closed and source.read() is None


@pytest.mark.parametrize("empty", [0])
def test_a_recording_without_frames_ends(empty):
    assert Looped(lambda: Counting(empty)).read() is None


@pytest.mark.parametrize("loop", [True, False])
def test_a_run_of_more_frames_than_the_source_has_needs_the_loop(exact_bundle, loop):
    config = {"source": "pattern:96x64@50,frames=5", "sinks": ["null:"], "bundle": str(exact_bundle), "fusion": 0}
    stats = run(validate({**config, "loop": loop, "frames": 12, "workers": "one"}))
    assert stats.frames.out == (12 if loop else 5)
