"""Keys of a run that is still to be opened: what is laid over them, and what of it is kept."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.live import LiveKeys, NeedsRestart, merged


def test_keys_are_laid_over_one_another_nested_ones_too():
    old = {"prompt": "ink", "stages": {"fuse": {"weight": 0.5, "entry": 0.2}}}
    assert merged(old, {"stages": {"fuse": {"weight": 0.7}}})["stages"]["fuse"] == {"weight": 0.7, "entry": 0.2}
    assert old["stages"]["fuse"]["weight"] == 0.5


def test_fusion_and_its_long_name_replace_one_another():
    assert merged({"fusion": 0.5}, {"stages": {"fuse": {"weight": 0.7}}}) == {"stages": {"fuse": {"weight": 0.7}}}
    short = merged({"stages": {"fuse": {"weight": 0.7, "entry": 0.2}}}, {"fusion": 0.5})
    assert short == {"fusion": 0.5, "stages": {"fuse": {"entry": 0.2}}}


@pytest.mark.parametrize(
    "keys", [{"stages": 3}, {"stages": {"fuse": 3}}, {"stages": None, "fusion": 2}, {"prompt": []}]
)
def test_what_cannot_be_used_changes_nothing(keys):
    live = LiveKeys({"prompt": "ink"})
    with pytest.raises(ConfigError):
        live.change(keys, None)
    assert live.keys == {"prompt": "ink"} and live.config.prompt == "ink"


def test_keys_that_are_built_in_ask_for_a_restart():
    live = LiveKeys({})
    for keys in ({"seed": 3}, {"source": "x.mp4"}, {"size": "64x48"}, {"workers": "one", "device": "cuda"}):
        with pytest.raises(NeedsRestart, match="cannot change while frames flow"):
            live.change(keys, None)
    assert live.change({"strength": 0.5}, None) is None and live.config.strength == 0.5
