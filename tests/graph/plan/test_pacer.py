"""Which frames are held, told by a clock that the tests turn."""

import numpy as np
import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.pacer import Pacer, PaceSettings
from warpfuse.stages.frame import RawFrame, Stamp

MS = 1_000_000


def picture(seed=0, shift=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return np.roll(coarse.repeat(16, 0).repeat(16, 1), shift, axis=1)


def frame(seq, rgb=None, arrived_ms=0.0, **stamp):
    return RawFrame(Stamp(seq, 0, arrived_ns=int(arrived_ms * MS), **stamp), picture(0, seq) if rgb is None else rgb)


def verdicts(settings, frames):
    pacer = Pacer()
    return [pacer.judge(f, settings, 0).stamp.hold for f in frames]


def test_nothing_is_held_unless_asked_for():
    assert not PaceSettings().active
    assert verdicts(PaceSettings(), [frame(seq) for seq in range(5)]) == [""] * 5


def test_skip_predicts_every_mth():
    assert verdicts(PaceSettings(skip=3), [frame(seq) for seq in range(7)]) == [
        "",
        "warp",
        "warp",
        "",
        "warp",
        "warp",
        "",
    ]


def test_a_cut_is_never_held():
    frames = [frame(0), frame(1), frame(2, picture(9)), frame(3, picture(9))]
    assert verdicts(PaceSettings(skip=4), frames) == ["", "warp", "", "warp"]
    frames = [frame(0), frame(1, discontinuity=True), frame(2)]
    assert verdicts(PaceSettings(skip=4), frames) == ["", "", "warp"]


def test_what_does_not_move_is_shown_again():
    rgb, moved = picture(1), picture(1).copy()
    moved[:16, :16] = 255 - moved[:16, :16]  # one corner is enough
    frames = [frame(0, rgb), frame(1, rgb), frame(2, rgb), frame(3, moved), frame(4, moved)]
    assert verdicts(PaceSettings(still=0.02), frames) == ["", "repeat", "repeat", "", "repeat"]


def test_slow_change_is_measured_from_what_is_shown():
    """Each step is below the threshold; the sum is not."""
    frames = [frame(seq, np.full((32, 32, 3), 100 + 2 * seq, np.uint8)) for seq in range(6)]
    found = verdicts(PaceSettings(still=0.02), frames)
    assert found[0] == "" and "repeat" in found and "" in found[1:]


def run(deadline_ms, cost_ms, frames=60, period_ms=10.0, at_most=8):
    """Frames every period through a machine that takes cost for a predicted one, one at a time; holds take 1 ms."""
    pacer, settings = Pacer(), PaceSettings(deadline_ms=deadline_ms, at_most=at_most)
    free_ms, found, late, inside = 0.0, [], 0, []
    for seq in range(frames):
        arrived = now = seq * period_ms
        while inside and inside[0][1] <= now:
            stamp, done = inside.pop(0)
            pacer.left(stamp, int(done * MS))
        judged = pacer.judge(frame(seq, arrived_ms=arrived), settings, int(now * MS))
        free_ms = max(free_ms, now) + (1.0 if judged.stamp.hold else cost_ms)
        inside.append((judged.stamp, free_ms))
        found.append(judged.stamp.hold)
        late += free_ms - arrived > deadline_ms
    return found, late


def test_in_time_nothing_is_held():
    found, late = run(deadline_ms=30, cost_ms=8)
    assert found == [""] * 60 and late == 0


def test_late_frames_are_held_and_the_next_is_repaired():
    found, late = run(deadline_ms=30, cost_ms=18)
    settled = found[20:]
    assert "warp" in settled and "" in settled
    assert max(len(gap) for gap in "".join("h" if h else "p" for h in settled).split("p")) <= 2, "repaired soon"
    control = run(deadline_ms=1e9, cost_ms=18)
    assert control[0] == [""] * 60
    assert late < 15 < sum(18 * (n + 1) - 10 * n > 30 for n in range(60)), "without holds the delay only grows"


def test_a_hopeless_deadline_still_predicts_now_and_then():
    found, _ = run(deadline_ms=1, cost_ms=50, at_most=3)
    settled = found[10:]
    assert 0.2 < settled.count("") / len(settled) < 0.35


def test_a_stream_batch_and_pace_exclude_each_other():
    with pytest.raises(ConfigError, match=r"use one of them"):
        validate({"steps": 2, "pace": {"skip": 2}, "stages": {"predict": {"stream": True}}})
