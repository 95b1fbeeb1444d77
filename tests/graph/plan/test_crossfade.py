"""What holds for a frame in the middle of a crossfade, by the times of frames alone."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.crossfade import Crossfades, shown, timed
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.stages.interim import PromptShare

FRAME_NS = 40_000_000
START = {"prompt": "ink", "strength": 1.0, "fusion": 0.8, "mask": {"of": "person", "amount": 0.0}}


class Run:
    """Frames 40 ms apart through a book, and what each is shown with."""

    def __init__(self, **keys):
        self.keys = {**START, **keys}
        self.book = SettingsBook(validate(self.keys))
        self.seq, self.pts_ns, self.interim = 0, 7_000_000_000, None

    def change(self, **keys):
        change = timed(keys)
        self.keys = {**self.keys, **change.keys}
        self.book.publish(validate(self.keys), change)

    def frames(self, number=1):
        for _ in range(number):
            version, self.interim = self.book.stamped(self.seq, self.pts_ns)
            config = shown(self.book[version], self.interim)
            self.seq, self.pts_ns = self.seq + 1, self.pts_ns + FRAME_NS
        return config

    @property
    def prompts(self):
        assert self.interim is not None
        return {one.prompt: one.share for one in self.interim.prompts}


def test_a_number_goes_along_a_line_by_the_times_of_the_frames():
    run = Run()
    run.frames()
    run.change(strength=0.0, over_s=4)
    found = [run.frames().strength for _ in range(102)]
    assert found[:100] == pytest.approx([1 - n / 100 for n in range(100)]) and found[100:] == [0, 0]
    assert run.interim is None, "behind its end a frame carries nothing"


def test_without_seconds_a_change_holds_at_once_and_frames_carry_nothing():
    run = Run()
    run.frames()
    run.change(strength=0.0, prompt="oil")
    assert run.frames().strength == 0 and run.interim is None


def test_prompts_are_told_by_their_shares():
    run = Run()
    run.frames()
    run.change(prompt="oil", over_s=1)
    run.frames(6)
    assert run.prompts == pytest.approx({"ink": 0.8, "oil": 0.2})
    run.frames(20)
    assert run.interim is None


def test_a_second_change_begins_from_what_is_on_show():
    run = Run()
    run.frames()
    run.change(prompt="oil", strength=0.5, over_s=1)
    strength = run.frames(13).strength
    assert strength == pytest.approx(1 - 0.5 * 12 / 25)
    run.change(prompt="noir", strength=1.0, over_s=2)
    assert run.frames().strength == pytest.approx(strength)
    assert run.prompts == pytest.approx({"ink": 13 / 25, "oil": 12 / 25})
    assert run.frames(25).strength == pytest.approx((strength + 1) / 2)
    assert run.prompts == pytest.approx({"ink": 6.5 / 25, "oil": 6 / 25, "noir": 0.5})
    assert run.frames(25).strength == 1 and run.interim is None


def test_a_change_of_one_key_leaves_the_others_on_their_way():
    run = Run()
    run.frames()
    run.change(prompt="oil", over_s=4)
    run.frames(51)
    run.change(strength=0.3)
    assert run.frames().strength == 0.3
    assert run.prompts == pytest.approx({"ink": 0.49, "oil": 0.51})
    run.change(prompt="oil")
    run.frames()
    assert run.interim is None, "named again, it is there"


def test_two_changes_between_two_frames_are_the_second():
    run = Run()
    run.frames()
    run.change(strength=0.0, over_s=1)
    run.change(strength=0.5, over_s=1)
    assert run.frames().strength == 1
    assert run.frames(25).strength == 0.5


def test_times_that_jump_back_take_nothing_from_a_crossfade():
    run = Run()
    run.frames()
    run.change(strength=0.0, over_s=1)
    run.frames(6)
    run.pts_ns = 0
    assert run.frames().strength == pytest.approx(0.8) and run.frames().strength == pytest.approx(0.76)


def test_maps_pairs_and_entries_of_lists_go_along_with_the_rest():
    between = [{"kind": "latent", "weight": 0.0}, {"kind": "reference", "weight": 1.0, "window": [0, 500]}]
    run = Run(controls={"canny": 0.0, "softedge": 1.0}, stages={"fuse": {"between": between}})
    run.frames()
    wanted = [{"kind": "latent", "weight": 1.0}, {"kind": "reference", "weight": 0.0, "window": [100, 1000]}]
    run.change(
        controls={"canny": 1.0, "softedge": 1.0}, stages={"fuse": {"between": wanted}}, mask={"of": "person"}, over_s=1
    )
    found = run.frames(6)
    assert found.controls["canny"].scale == pytest.approx(0.2) and found.controls["softedge"].scale == 1
    assert [one.weight for one in found.stages.fuse.between] == pytest.approx([0.2, 0.8])
    assert found.stages.fuse.between[1].window == pytest.approx((20, 600)) and found.mask.amount == pytest.approx(0.2)


def test_whole_numbers_and_words_hold_at_once():
    run = Run()
    run.frames()
    run.change(steps=4, stages={"fuse": {"noise": "fresh", "exit": 0.5}}, over_s=1)
    found = run.frames()
    assert (found.steps, found.stages.fuse.noise, found.stages.fuse.exit) == (4, "fresh", 1)


def test_the_time_of_a_keyframe_holds_at_once_and_its_weight_fades():
    run = Run(stages={"anchor": {"picture": "key.png", "at": 1.0, "weight": 0.0}})
    run.frames()
    run.change(stages={"anchor": {"picture": "key.png", "at": 5.0, "weight": 1.0}}, over_s=4)
    anchor = run.frames(51).stages.anchor
    assert anchor.at == 5.0 and anchor.weight == pytest.approx(0.5)


def test_who_changes_the_prompt_again_and_again_gets_six_of_them_and_they_add_up_to_one():
    run = Run()
    run.frames()
    for number in range(40):
        run.change(prompt=f"style {number}", over_s=10)
        run.frames(10)
    assert len(run.prompts) == 6 and sum(run.prompts.values()) == pytest.approx(1)
    run.frames(250)
    assert run.interim is None


def test_a_prompt_fades_with_what_pulls_away_and_its_loras():
    fades = Crossfades(validate({"prompt": "ink", "loras": {"paint": 0.5}}))
    fades.at(0)
    fades.change(validate({"prompt": "ink", "loras": {"paint": 1.0}}), over_ns=100)
    fades.at(0)
    found = fades.at(25)
    assert found.prompts == (
        PromptShare(0.75, "ink", "", (("paint", 0.5),)),
        PromptShare(0.25, "ink", "", (("paint", 1.0),)),
    )


@pytest.mark.parametrize("seconds", [-1, 3601, float("nan"), "4 s", True, None, [4]])
def test_what_is_no_time_is_told_in_one_line(seconds):
    with pytest.raises(ConfigError, match="over_s: expected seconds from 0 to 3600"):
        timed({"prompt": "ink", "over_s": seconds})
