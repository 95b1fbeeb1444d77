"""A look: keys that are set together by one name, wherever keys are taken."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import LiveSettings, NeedsRestart
from warpfuse.graph.plan.looks import show_of
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.raw_keys import merge, set_key
from warpfuse.graph.plan.streams import read_streams

CALM = {"prompt": "ink", "strength": 0.5, "fusion": 0.9}
STORM = {"prompt": "oil:2, ink", "strength": 1.0, "stages": {"fuse": {"exit": 0.2}}}
SHOW = {"source": "here", "sinks": ["there"], "looks": {"calm": CALM, "storm": STORM}}


def live(**keys):
    keys = {**SHOW, **keys}
    config = validate(keys)
    return LiveSettings(keys, config, plan_graph(config), config.steps, lambda *told: None)


def told(config):
    return config.prompt, config.strength, config.stages.fuse.weight, config.stages.fuse.exit


def test_a_look_sets_its_keys_and_leaves_the_others():
    settings = live(seed=3)
    assert told(settings.changed({"look": "calm"})) == ("ink", 0.5, 0.9, 1.0)
    assert told(settings.changed({"look": "storm"})) == ("oil:2, ink", 1.0, 0.9, 0.2) and settings.config.seed == 3


def test_a_show_has_nothing_that_is_this_machines_own():
    own = {"source": "camera:0", "sinks": ["me.mp4"], "mirror": True, "sound_delay": 0.3, "workers": "one"}
    show = show_of(validate({"looks": {"calm": {**CALM, **own}}}).model_dump(mode="json"))
    assert show["looks"]["calm"] == CALM and not show.keys() & own.keys()


STEERED = {
    "controls": {"canny": 0.8, "depth": {"kind": "image", "scale": 0.5}},
    "images": {"own": {"picture": "own.png", "scale": 0.3, "style": 1.0}, "other": "other.png"},
}


def scales(config):
    found = {name: control.scale for name, control in config.controls.items()}
    return found, {name: image.scales for name, image in config.images.items()}


def test_a_look_that_names_controls_or_images_names_all_of_them():
    looks = {"lines": {"controls": {"canny": 0.2}}, "bare": {"images": {}}, "calm": CALM}
    settings = live(**STEERED, looks=looks)
    before = scales(settings.config)
    assert scales(settings.changed({"look": "calm"})) == before, "one that is silent of them leaves them"
    assert scales(settings.changed({"look": "lines"})) == ({"canny": 0.2, "depth": 0.0}, before[1])
    assert scales(settings.changed({"look": "bare"})) == (
        {"canny": 0.2, "depth": 0.0},
        {"own": (0,) * 3, "other": (0,) * 3},
    )
    assert settings.config.images["own"].picture == "own.png" and settings.config.controls["depth"].kind == "image"
    beside = settings.changed({"look": "lines", "controls": {"depth": 0.4}})
    assert scales(beside)[0] == {"canny": 0.2, "depth": 0.4}, "what is named beside a look lies on top"
    assert settings.config.looks == looks, "a look stays what was written"


def test_what_a_look_lays_off_fades_with_it():
    settings = live(**STEERED, looks={"lines": {"controls": {"canny": 0.2}, "images": {"other": 1.0}}})
    change = settings.timed({"look": "lines", "over_s": 4})
    assert {"controls.canny.scale", "controls.depth.scale", "images.own.scale", "images.own.style"} <= set(change.named)
    assert "images.own.layout" not in change.named, "it follows the scale"


def test_what_was_laid_off_is_had_again_by_a_look_that_names_it_alone():
    looks = {"bare": {"images": {}, "controls": {}}, "full": {"images": {"own": "new.png"}, "controls": {"canny": {}}}}
    settings = live(**STEERED, looks=looks)
    for name in ("bare", "full"):
        settings.changed({"look": name})
    assert scales(settings.config) == ({"canny": 1.0, "depth": 0.0}, {"own": (0.6,) * 3, "other": (0,) * 3})
    assert settings.config.images["own"].picture == "new.png"


def test_a_look_of_the_command_line_lays_off_what_the_file_has():
    keys = {**SHOW, **STEERED, "looks": {"lines": {"controls": {"canny": 0.2}}}}
    set_key(keys, "look=lines")
    assert scales(validate(keys))[0] == {"canny": 0.2, "depth": 0.0}


def test_what_is_named_beside_a_look_lies_on_top_of_it():
    settings = live()
    assert told(settings.changed({"look": "calm", "strength": 0.25, "fusion": 0.1})) == ("ink", 0.25, 0.1, 1.0)
    assert told(validate({**SHOW, "look": "storm", "prompt": "noir"})) == ("noir", 1.0, 0.8, 0.2)


def test_a_crossfade_of_a_look_names_its_keys():
    change = live().timed({"look": "storm", "over_s": 4})
    assert change.over_ns == 4_000_000_000 and change.keys == STORM
    assert set(change.named) == {"prompt", "strength", "stages.fuse.exit"}


def test_a_look_that_is_set_on_the_command_line_lies_on_top_of_the_file():
    keys = {**SHOW, "prompt": "noir"}
    set_key(keys, "look=calm")
    assert told(validate(keys)) == ("ink", 0.5, 0.9, 1.0)


def test_looks_are_learned_replaced_and_forgotten_while_frames_flow():
    settings = live()
    settings.changed({"looks": {"dawn": {"strength": 0.1}, "calm": None, "storm": {"prompt": "noir"}}})
    assert settings.config.looks == {"dawn": {"strength": 0.1}, "storm": {"prompt": "noir"}}
    assert settings.changed({"look": "dawn"}).strength == 0.1
    with pytest.raises(ConfigError, match="there is no look 'calm'; there are: storm, dawn"):
        settings.changed({"look": "calm"})
    settings.changed({"looks": {"own": {"strength": 0.7}}, "look": "own"})
    assert settings.config.strength == 0.7


def test_a_look_of_another_bundle_asks_for_a_restart():
    settings = live(looks={"far": {"bundle": "other", "prompt": "ink"}})
    with pytest.raises(NeedsRestart, match="bundle cannot change"):
        settings.changed({"look": "far"})
    assert settings.config.prompt == ""


def test_streams_have_the_looks_of_all():
    streams = read_streams({"looks": SHOW["looks"], "streams": {"a": {"source": "a", "sinks": ["b"], "look": "calm"}}})
    assert told(streams.configs["a"]) == ("ink", 0.5, 0.9, 1.0)


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ({"calm": {"promt": "ink"}}, "looks: calm: unknown key 'promt'; did you mean 'prompt'?"),
        ({"calm": {"strength": 7}}, "looks: calm: strength: "),
        ({"calm": {"look": "storm"}}, "looks: calm: a look holds no look"),
        ({"calm": 3}, "looks.calm: "),
        ({"../calm": {}}, "looks"),
    ],
)
def test_what_is_no_look_is_told_in_one_line(looks, words):
    with pytest.raises(ConfigError) as refused:
        validate({"looks": looks})
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


def test_an_unknown_look_is_told():
    with pytest.raises(ConfigError, match="there is no look 'dawn'; there are: calm, storm"):
        validate({**SHOW, "look": "dawn"})
    with pytest.raises(ConfigError, match="none yet"):
        merge({}, {"look": "dawn"})
