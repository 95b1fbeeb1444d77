"""The table of live keys is that of the model: nothing in it is said twice, and nothing is left out."""

import re

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.crossfade import LIVE
from warpfuse.graph.plan.key_table import control_keys, live_keys, run_keys

KEYS = {key.key: key for key in live_keys()}
MAPS = ("loras", "controls", "stages.added", "schedule.cues", "midi")


def leaves(value, prefix=""):
    """The paths of all values that are no mappings of keys."""
    for name, inner in value.items():
        if isinstance(inner, dict) and f"{prefix}{name}" not in MAPS:
            yield from leaves(inner, f"{prefix}{name}.")
        elif f"{prefix}{name}" not in MAPS:
            yield f"{prefix}{name}"


def nested(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def test_every_live_key_is_in_the_table():
    whole = GraphConfig().model_dump(mode="json", include=set(LIVE))
    assert set(leaves(whole)) == set(KEYS)


def test_every_key_is_told_what_it_is():
    assert [name for name, key in KEYS.items() if not key.about] == []
    assert KEYS["strength"].about == "0..1: from the source picture to the full style"
    assert KEYS["stages.predict.attention.refresh"].none and KEYS["stages.fuse.window"].kind == "pair"
    assert "path" in run_keys()["source"]


def test_what_a_key_is_told_to_be_is_for_users():
    """The page shows it as a tip."""
    told = {name: key.about for name, key in KEYS.items()} | run_keys()
    told |= {f"{kind}.{key.key}": key.about for kind, keys in control_keys().items() for key in keys}
    code = re.compile(r"`\w+\.py`|\.py`|`[A-Z]\w*`|\bNone\b")
    assert code.search("at most `W_MAX`") and code.search("(`guidance.py`)"), "the control"
    assert {name: about for name, about in told.items() if not about or code.search(about)} == {}
    assert told["mask.kind"].startswith("off: the whole picture; network: what a network finds in the frame; file: ")


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.kind in ("number", "whole")])
def test_bounds_are_those_the_model_holds_to(name):
    key = KEYS[name]
    for bound, beyond in ((key.least, -1), (key.most, 1)):
        if bound is not None:
            with pytest.raises(ConfigError, match=name.rpartition(".")[2]):
                validate(nested(name, bound + beyond))


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.kind == "choice"])
def test_choices_are_those_the_model_takes(name):
    key = KEYS[name]
    if name == "mask.kind":
        pytest.skip("it goes with mask.of")
    for choice in key.choices:
        validate(nested(name, choice))
    with pytest.raises(ConfigError):
        validate(nested(name, "nothing"))
