"""Changing keys while frames flow: what is laid over what, and what asks for a restart."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import LiveSettings, NeedsRestart, check_live
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.raw_keys import merge
from warpfuse.stages.errors import AttentionError

ENDS = {"source": "here", "sinks": ["here"]}


def live(**keys):
    keys = {**ENDS, **keys}
    config = validate(keys)
    return LiveSettings(keys, config, plan_graph(config), config.steps, lambda *told: None)


def test_keys_are_laid_over_one_another_nested_ones_too():
    old = {"prompt": "ink", "stages": {"fuse": {"weight": 0.5, "entry": 0.2}}}
    assert merge(old, {"stages": {"fuse": {"weight": 0.7}}})["stages"]["fuse"] == {"weight": 0.7, "entry": 0.2}
    assert old["stages"]["fuse"]["weight"] == 0.5


def test_fusion_and_its_long_name_replace_one_another():
    assert merge({"fusion": 0.5}, {"stages": {"fuse": {"weight": 0.7}}}) == {"stages": {"fuse": {"weight": 0.7}}}
    short = merge({"stages": {"fuse": {"weight": 0.7, "entry": 0.2}}}, {"fusion": 0.5})
    assert short == {"fusion": 0.5, "stages": {"fuse": {"entry": 0.2}}}


@pytest.mark.parametrize(
    "keys", [{"stages": 3}, {"stages": {"fuse": 3}}, {"stages": None, "fusion": 2}, {"prompt": []}]
)
def test_what_cannot_be_used_changes_nothing(keys):
    settings = live(prompt="ink")
    with pytest.raises(ConfigError):
        settings.changed(keys)
    assert settings.keys == {**ENDS, "prompt": "ink"} and settings.config.prompt == "ink"


def test_keys_that_are_built_in_ask_for_a_restart():
    was = validate({})
    for keys in ({"seed": 3}, {"source": "x.mp4"}, {"size": "64x48"}, {"device": "cuda"}):
        with pytest.raises(NeedsRestart, match="cannot change while frames flow"):
            check_live(validate(keys), was)
    with pytest.raises(NeedsRestart, match="decides which stages there are"):
        live().changed({"stages": {"fuse": {"reference": "latent"}}})


def test_a_change_is_the_configuration_from_then_on():
    settings = live()
    assert settings.changed({"strength": 0.5}).strength == 0.5
    assert (settings.changed({"prompt": "ink"}).strength, settings.keys) == (
        0.5,
        {**ENDS, "strength": 0.5, "prompt": "ink"},
    )


def test_scale_window_and_thresholds_of_a_control_are_live_and_the_rest_asks_for_a_restart():
    settings = live(controls={"canny": 0.5, "still": {"kind": "image", "picture": "a.png"}})
    assert settings.changed({"controls": {"canny": 0.7}}).controls["canny"].scale == 0.7
    found = settings.changed({"controls": {"canny": {"low": 20, "window": [0, 500]}}}).controls
    assert (found["canny"].scale, found["canny"].low, found["canny"].window) == (0.7, 20, (0, 500))
    assert settings.changed({"controls": {"canny": 0}}).controls["canny"].low == 20, "a number leaves the rest"
    before = settings.config
    for keys in (
        {"depth": {"kind": "image"}},
        {"canny": {"kind": "image"}},
        {"still": {"picture": "b.png"}},
    ):
        with pytest.raises((NeedsRestart, ConfigError), match=r"cannot change while frames flow|unknown key"):
            settings.changed({"controls": keys})
    assert settings.config == before


def test_a_recipe_is_its_weights_and_a_later_key_stands_on_top():
    settings = live(stages={"predict": {"attention": {"coverage": 0.5}}})
    settings.attends = True
    found = settings.changed({"stages": {"predict": {"attention": "rerender"}}}).stages.predict.attention
    assert (found.own, found.anchor, found.previous, found.coverage) == (0, 1, 1, 0.5)
    found = settings.changed({"stages": {"predict": {"attention": {"own": 0.25}}}}).stages.predict.attention
    assert (found.own, found.anchor, found.previous, found.coverage) == (0.25, 1, 1, 0.5)
    with pytest.raises(ConfigError, match=r"stages\.predict\.attention: expected rerender, streamv2v, off"):
        settings.changed({"stages": {"predict": {"attention": "rerendr"}}})
    assert merge(
        {"stages": {"predict": {"attention": "off"}}}, {"stages": {"predict": {"attention": {"own": 0.5}}}}
    ) == {"stages": {"predict": {"attention": {"own": 0.5, "anchor": 0.0, "previous": 0.0}}}}
    settings.attends = False
    with pytest.raises(AttentionError, match="exported without attention"):
        settings.changed({"stages": {"predict": {"attention": {"own": 0.5}}}})
    assert settings.config.stages.predict.attention == found


WINDOWS = [{"kind": "latent", "of": "anchor", "weight": 1.0}, {"kind": "reference"}]


def test_an_entry_of_a_list_changes_by_its_number_and_a_list_as_a_whole():
    def fuse(**keys):
        return {"stages": {"fuse": keys}}

    assert merge(fuse(between=WINDOWS), fuse(between={"1": {"weight": 0.5}})) == fuse(
        between=[WINDOWS[0], {"kind": "reference", "weight": 0.5}]
    )
    assert merge(fuse(between=WINDOWS), fuse(between=WINDOWS[:1])) == fuse(between=WINDOWS[:1])
    settings = live(steps=2, **fuse(between=WINDOWS))
    found = settings.changed(fuse(between={"0": {"weight": 0.25, "window": [500, 1000]}}))
    assert [one.weight for one in found.stages.fuse.windows] == [0.25, 0.8]
    with pytest.raises(ConfigError, match="between"):
        settings.changed(fuse(between={"2": {"weight": 0.25}}))


def test_what_is_taken_from_an_anchor_changes_live_where_one_was_built():
    built = live(steps=2, stages={"fuse": {"between": WINDOWS}})
    built.changed({"stages": {"fuse": {"adain": {"weight": 0.5}}, "anchor": {"coverage": 0.5}}})
    built.changed({"stages": {"fuse": {"adain": {"weight": 0}, "between": [{"kind": "latent"}]}}})
    built.changed({"stages": {"fuse": {"between": WINDOWS}}})
    for fuse in ({"adain": {"weight": 0.5}}, {"between": [{"kind": "reference", "of": "anchor"}]}):
        with pytest.raises(NeedsRestart, match="what is taken from an anchor, if they were off at first"):
            live(steps=2).changed({"stages": {"fuse": fuse}})
    others = {"twice": True}, {"past": "encoder"}
    for stages in ({"fuse": {"between": [{"kind": "picture", "of": "anchor"}]}}, *({"encode": one} for one in others)):
        with pytest.raises(NeedsRestart, match="decides which stages there are"):
            built.changed({"stages": stages})
