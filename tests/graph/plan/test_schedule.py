"""A schedule of cues lies over the settings of a run, by the times of its frames."""

from pathlib import Path

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.beats import length_ns
from warpfuse.graph.plan.checks import check_early
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.crossfade import timed
from warpfuse.graph.plan.live_settings import LiveSettings, NeedsRestart
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.raw_keys import merge, read_graph_file
from warpfuse.graph.plan.setting_versions import SettingsBook

FRAME_NS = 40_000_000
LOOKS = {"calm": {"prompt": "ink", "strength": 0.5}, "storm": {"prompt": "oil", "strength": 1.0, "steps": 2}}
SHOW = {"looks": LOOKS, "bpm": 120, "schedule": {"every": "1 beat", "cues": ["calm", "storm"]}, "fusion": 0.8}


class Run:
    """Frames 40 ms apart, 12.5 a beat, through the book beside the source, and through another beside a stage."""

    def __init__(self, **keys):
        self.keys = merge(SHOW, keys)
        self.live = LiveSettings(
            self.keys, validate(self.keys), plan_graph(validate({**self.keys, "source": "a", "sinks": ["b"]})), 1,
            lambda *told: None,
        )  # fmt: skip
        self.books = SettingsBook(self.live.config), SettingsBook(self.live.config)
        self.seq = 0

    def change(self, **keys):
        how = self.live.timed(keys)
        config = self.live.changed(keys)
        version, _ = self.books[0].publish(config, how)
        self.books[1].add(version, config, how)

    def frames(self, number=1):
        found = []
        for _ in range(number):
            version, self.interim = self.books[0].stamped(self.seq, self.seq * FRAME_NS)
            found.append(self.books[1].shown(version, self.interim))
            self.seq += 1
        return found


def test_cues_follow_one_another_in_time_and_hold_all_that_they_name():
    found = Run().frames(26)
    assert [one.prompt for one in found] == ["ink"] * 13 + ["oil"] * 12 + ["ink"]
    assert found[12].strength == 0.5 and (found[13].strength, found[13].steps) == (1, 2) and found[25].steps == 1
    assert {one.stages.fuse.weight for one in found} == {0.8}, "what no cue names is as it was set"


def test_a_crossfade_comes_to_each_cue_by_its_beats():
    run = Run(schedule={"every": "4 beats", "over": "2 beats", "cues": ["calm", "storm"]})
    found = [one.strength for one in run.frames(101)]
    assert found[:51] == [0.5] * 51, "the first frame of a way is where it begins"
    assert found[50:76] == pytest.approx([0.5 + 0.5 * n / 25 for n in range(26)]) and found[76:100] == [1.0] * 24
    run = Run(schedule={"every": "4 beats", "over": "2 beats", "cues": ["calm", "storm"]})
    run.frames(61)
    assert {one.prompt: one.share for one in run.interim.prompts} == pytest.approx({"ink": 0.6, "oil": 0.4})


def test_what_is_set_by_hand_holds_until_the_next_cue():
    run = Run()
    run.frames(5)
    run.change(fusion=0.3, strength=0.1)
    found = run.frames(8)
    assert {(one.stages.fuse.weight, one.strength, one.prompt) for one in found} == {(0.3, 0.1, "ink")}
    storm, *_, calm = run.frames(13)
    assert (storm.stages.fuse.weight, storm.strength, storm.prompt) == (0.3, 1.0, "oil"), "what no cue names stays"
    assert (calm.strength, calm.prompt) == (0.5, "ink"), "a cue that comes again is whole"
    run.change(schedule={"on": False})
    (found,) = run.frames()
    assert (found.strength, found.prompt, run.interim) == (0.1, "", None)


def test_a_look_by_hand_holds_until_the_next_cue():
    run = Run()
    run.frames(5)
    run.change(look="storm")
    assert {(one.prompt, one.strength, one.steps) for one in run.frames(8)} == {("oil", 1.0, 2)}
    run.frames(12)
    assert run.frames()[0].prompt == "ink"


def test_a_hand_fades_from_what_the_cue_shows_and_the_next_cue_from_the_hand():
    run = Run(schedule={"every": "4 beats", "over": "2 beats", "cues": ["calm", "storm"]})
    run.frames(5)
    run.change(strength=0.1, over_s=0.4)
    found = [one.strength for one in run.frames(46)]
    assert found[:12] == pytest.approx([0.5 - 0.04 * min(n, 10) for n in range(12)]) and found[45] == pytest.approx(0.1)
    assert [one.strength for one in run.frames(25)] == pytest.approx([0.1 + 0.9 * n / 25 for n in range(1, 26)])


@pytest.mark.parametrize(
    ("cue", "by_hand", "expected"),
    [
        ({"fusion": 0.9}, {"stages": {"fuse": {"weight": 0.2}}}, 0.2),
        ({"stages": {"fuse": {"weight": 0.9}}}, {"fusion": 0.2}, 0.2),
        ({"stages": {"fuse": {"weight": 0.9, "exit": 0.4}}}, {"stages": {"fuse": {"exit": 0.3}}}, 0.9),
    ],
)
def test_a_key_is_in_the_hand_however_it_is_written(cue, by_hand, expected):
    run = Run(schedule={"every": "8 beats", "cues": [cue]})
    run.frames(2)
    run.change(**by_hand)
    assert run.frames()[0].stages.fuse.weight == expected


@pytest.mark.parametrize("schedule", [{"cues": ["calm"]}, {"cues": ["calm", "storm"], "every": "2 beats"}])
def test_the_same_look_as_the_next_cue_and_another_schedule_take_over_from_the_hand(schedule):
    run = Run(schedule={"cues": ["calm"]})
    run.frames(2)
    run.change(strength=0.1)
    assert run.frames()[0].strength == 0.1
    if "every" in schedule:
        run.change(schedule=schedule)
    else:
        run.frames(10)
    assert run.frames()[0].strength == 0.5


def test_the_last_cue_stays_in_the_hand():
    run = Run(schedule={"cues": ["storm"], "repeat": False})
    run.frames(2)
    run.change(strength=0.1)
    assert {one.strength for one in run.frames(60)} == {0.1}


def test_a_cue_that_does_not_go_with_what_is_in_the_hand_waits_for_the_next():
    """low <= high holds of the settings and of the cue, and not of what the hand leaves of the cue."""
    edges = {"edges": {"kind": "canny", "low": 50, "high": 100}}
    cue = {"controls": {"edges": {"kind": "canny", "low": 150, "high": 200}}}
    run = Run(controls=edges, schedule={"every": "4 beats", "cues": [cue]})
    assert run.frames()[0].controls["edges"].low == 150
    run.change(controls={"edges": {"high": 120}})
    found = run.frames()[0].controls["edges"]
    assert (found.low, found.high) == (50, 120)


def test_a_look_that_is_changed_is_another_cue():
    run = Run()
    run.frames(5)
    run.change(looks={"calm": {"prompt": "noir"}})
    assert run.frames()[0].prompt == "noir"


def test_the_tempo_changes_while_the_cues_go_on():
    run = Run()
    run.frames(7)  # the next is at beat 0.56
    run.change(bpm=60)
    found = run.frames(30)
    assert [one.prompt for one in found].index("oil") == 11, "0.44 beats of 25 frames later"
    run.change(bpm=120, on_beat=True)  # at beat 1.76, which is the second
    assert [one.prompt for one in run.frames(14)] == ["ink"] * 13 + ["oil"]


def test_a_crossfade_of_a_change_may_be_told_in_beats():
    assert timed({"strength": 0.5, "over_beats": 4}, 120).over_ns == 2_000_000_000
    assert Run().live.timed({"strength": 0.5, "over_beats": 1}).over_ns == 500_000_000
    for keys, words in (
        ({"over_beats": "4"}, "over_beats: expected beats from 0 to 7200, got '4'"),
        ({"over_beats": 1, "over_s": 1}, "give one of them"),
        ({"on_beat": "now"}, "on_beat: expected true or false"),
    ):
        with pytest.raises(ConfigError, match=words):
            timed(keys, 120)


def test_a_source_that_begins_again_in_the_middle_comes_to_the_same_cues():
    whole = [one.prompt for one in Run().frames(60)]
    again = Run()
    again.seq = 30
    assert [one.prompt for one in again.frames(30)] == whole[30:]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"cues": ["dawn"]}, "schedule.cues.0: there is no look 'dawn'; there are: calm, storm"),
        ({"cues": ["calm", {"promt": "ink"}]}, "schedule.cues.1: unknown key 'promt'; did you mean 'prompt'?"),
        ({"cues": [{"strength": 7}]}, "schedule.cues.0: strength: "),
        ({"cues": [{"schedule": {"on": False}}]}, "schedule.cues.0: a cue holds no schedule"),
        ({"cues": [3]}, "schedule.cues.0"),
        ({"evry": "1 s"}, "unknown key 'schedule.evry'; did you mean 'schedule.every'?"),
    ],
)
def test_what_is_no_schedule_is_told_in_one_line(schedule, words):
    with pytest.raises(ConfigError) as refused:
        validate({"looks": LOOKS, "schedule": schedule})
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


@pytest.mark.parametrize("bpm", [0, 19, 401, "fast"])
def test_what_is_no_tempo_is_told(bpm):
    with pytest.raises(ConfigError, match="bpm"):
        validate({"bpm": bpm})


def test_a_cue_that_decides_what_is_built_is_refused_before_it_is_time_for_it():
    with pytest.raises(ConfigError, match=r"schedule\.cues\.1: seed cannot change while frames flow"):
        Run(schedule={"cues": ["calm", {"seed": 7}]})
    run = Run()
    with pytest.raises(ConfigError, match=r"schedule\.cues\.0: bundle cannot change"):
        run.change(schedule={"cues": [{"bundle": "other"}]})
    with pytest.raises(NeedsRestart):
        run.change(seed=7)
    assert run.live.config.schedule.cues == ("calm", "storm")


def test_the_set_of_the_documents_lasts_ten_minutes_and_names_what_there_is():
    keys = read_graph_file(Path(__file__).parents[3] / "docs" / "set.yaml")
    config = validate({**keys, "source": "pattern:96x64@25,frames=10"})
    check_early(config, watched=True)
    assert len(config.schedule.cues) * length_ns(config.schedule.every, config.bpm) == 600 * 10**9
    with pytest.raises(ConfigError, match=r"schedule\.cues\.0: .*watercolours"):
        check_early(
            validate({**keys, "source": config.source, "looks": {**keys["looks"], "dawn": {"prompt": "watercolours"}}}),
            watched=True,
        )


def test_a_look_is_kept_while_a_cue_names_it():
    with pytest.raises(ConfigError, match=r"schedule.cues.0: there is no look 'calm'"):
        Run().change(looks={"calm": None})
