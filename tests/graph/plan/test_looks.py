"""A look: keys that are set together by one name, wherever keys are taken."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import LiveSettings, NeedsRestart
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
