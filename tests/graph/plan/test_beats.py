"""Time in beats: lengths, the tempo by the times of frames, taps, and which cue of a schedule it is time for."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.beats import BeatClock, CueClock, ScheduleSettings, TapTempo, length_ns
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.validation import validated

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "form"), [("4 beats", "4 beats"), (" 1 beat", "1 beats"), (".5beats", "0.5 beats"), ("8 seconds", "8 s")]
)
def test_a_length_is_a_number_and_a_unit(text, form):
    assert validated(ScheduleSettings, {"every": text}).every == form


@pytest.mark.parametrize("text", ["4", "four beats", "-1 beats", "4 bars", "", 4, None, "1e9 beats", "0 beats"])
def test_what_is_no_length_is_told_in_one_line(text):
    with pytest.raises(ConfigError, match=r"schedule.every: expected") as refused:
        validate({"schedule": {"every": text}})
    assert "\n" not in str(refused.value)


def test_a_crossfade_is_no_longer_than_its_cue_and_of_its_unit():
    assert validated(ScheduleSettings, {"every": "4 beats", "over": "4 beats"}).over_ns(120) == 2 * SECOND
    for over in ("5 beats", "1 s"):
        with pytest.raises(ConfigError, match="over: expected up to '4 beats'"):
            validated(ScheduleSettings, {"every": "4 beats", "over": over})


def test_beats_are_counted_at_the_tempo():
    assert length_ns("4 beats", 120) == 2 * SECOND and length_ns("4 s", 120) == 4 * SECOND
    clock = BeatClock(90)
    clock.pass_to(20 * SECOND)
    assert clock.beats == 30


def test_a_change_of_tempo_keeps_the_beat_and_a_tap_moves_it_to_the_nearest():
    clock = BeatClock(120)
    clock.pass_to(0)
    clock.pass_to(1_150_000_000)
    clock.change(60)
    assert clock.beats == pytest.approx(2.3)
    clock.pass_to(2_150_000_000)
    assert clock.beats == pytest.approx(3.3)
    clock.change(60, on_beat=True)
    assert clock.beats == 3
    clock.pass_to(3_150_000_000)
    assert clock.beats == 4


def test_times_that_jump_back_let_no_time_pass():
    clock = BeatClock(60)
    for pts_s in (0, 10, 0, 1):
        clock.pass_to(pts_s * SECOND)
    assert clock.beats == 11


def cues(schedule, bpm, fps, frames):
    clock = BeatClock(bpm)
    cue_clock = CueClock(validated(ScheduleSettings, schedule), clock)
    found = []
    for n in range(frames):
        clock.pass_to(n * SECOND // fps)
        found.append(cue_clock.cue)
    return found


@pytest.mark.parametrize(("bpm", "fps", "every"), [(120, 25, 50), (120, 30, 60), (100, 25, 60), (75, 24, 77)])
def test_a_cue_begins_with_the_first_frame_of_its_beat(bpm, fps, every):
    """4 beats at bpm are 240 / bpm seconds; of 240 * fps / bpm frames the first at or behind it (76.8: the 77th)."""
    found = cues({"every": "4 beats", "cues": ["a", "b", "c"]}, bpm, fps, 3 * every + 1)
    changes = [n for n in range(1, len(found)) if found[n] != found[n - 1]]
    assert changes[0] == every and found[0] == 0 and found[every] == 1
    assert found[-1] == 0 or every == 77, "behind the last comes the first"


def test_the_last_cue_stays_where_they_do_not_repeat_and_none_holds_where_it_is_off():
    assert cues({"every": "1 s", "cues": ["a", "b"], "repeat": False}, 120, 1, 5) == [0, 1, 1, 1, 1]
    assert cues({"every": "1 s", "cues": ["a", "b"], "on": False}, 120, 1, 2) == [None, None]
    assert cues({"every": "1 s"}, 120, 1, 2) == [None, None]


def test_another_schedule_begins_with_its_first_cue_on_the_nearest_beat():
    clock = BeatClock(60)
    one = validated(ScheduleSettings, {"every": "2 beats", "cues": ["a", "b"]})
    found = CueClock(one, clock)
    clock.pass_to(round(7.4 * SECOND))
    assert found.cue == 1
    found.change(one)
    assert found.cue == 1, "the same one goes on"
    found.change(validated(ScheduleSettings, {"every": "2 beats", "cues": ["c", "d"]}))
    assert found.cue == 0
    clock.pass_to(round(8.9 * SECOND))
    assert found.cue == 0
    clock.pass_to(9 * SECOND)
    assert found.cue == 1


def test_taps_give_the_mean_tempo_and_a_pause_begins_anew():
    tempo = TapTempo()
    assert tempo.tap(0) is None
    assert tempo.tap(500_000_000) == 120
    assert tempo.tap(900_000_000) == pytest.approx(120 * 2 / 1.8, abs=0.01)
    assert tempo.tap(9 * SECOND) is None and tempo.tap(10 * SECOND) == 60
    assert tempo.tap(10 * SECOND) is None, "two taps at one time are no tempo"
    assert tempo.tap(10 * SECOND + 1000) == 400


def test_the_tempo_follows_who_taps_faster():
    tempo, now = TapTempo(), 0
    for _ in range(10):
        tempo.tap(now := now + 1_000_000_000)
    found = [tempo.tap(now := now + 500_000_000) for _ in range(8)]
    assert found[-1] == 120 and found == sorted(found)
