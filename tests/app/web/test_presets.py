"""Presets stay in their folder and are checked before they are kept."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.web.presets import MOST_BYTES, dump, parse
from warpfuse.web.session import PageSession

BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nprompt: [*b, *b, *b]\n"


def test_what_is_saved_is_loaded(presets):
    presets.save("Sunday paper", dump({"prompt": "ink:2, mosaic", "stages": {"fuse": {"weight": 0.5}}}))
    assert presets.names() == ["Sunday paper"]
    assert presets.load("Sunday paper") == {"prompt": "ink:2, mosaic", "stages": {"fuse": {"weight": 0.5}}}
    presets.delete("Sunday paper")
    assert presets.names() == []


@pytest.mark.parametrize(
    "name", ["../escape", "..", "a/b", "/etc/passwd", "a\\b", ".hidden", "", "x" * 65, "a\0b", "a.yaml"]
)
def test_a_name_cannot_leave_the_folder(presets, tmp_path, name):
    (tmp_path / "escape.yaml").write_text("prompt: secret")
    for action in (presets.load, presets.delete, lambda n: presets.save(n, "prompt: ink")):
        with pytest.raises(ConfigError, match="preset name"):
            action(name)
    assert (tmp_path / "escape.yaml").read_text() == "prompt: secret"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases"),
        ("prompt: " + "x" * MOST_BYTES, "at most"),
        ("stages: " + "[" * 50 + "]" * 50, "nested deeper"),
        ("stages: " + "{a: " * 5000, "nested deeper"),
        ("prompt: [unclosed", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
        ("- a list", "expected keys and values"),
        ("1: 2", "expected keys and values"),
        ("promt: ink", "did you mean 'prompt'"),
        ("strength: 7", "strength"),
        ("prompt: \x00", "no YAML"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_and_the_old_one_stays(presets, text, words):
    presets.save("kept", "prompt: ink")
    with pytest.raises(ConfigError, match=words) as caught:
        presets.save("kept", text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert presets.load("kept") == {"prompt": "ink"}


def test_an_empty_file_holds_no_keys():
    assert parse("") == {} and parse("# nothing yet\n") == {}


def test_a_look_that_was_kept_without_a_control_is_had_again(control_bundles, presets, tmp_path):
    keys = {"source": "pattern:64x64@25,live=1,frames=100000", "bundle": control_bundles["steered"], "steps": 2,
            "controls": {"canny": {"scale": 0.8, "low": 20, "high": 40}}}  # fmt: skip
    plain = PageSession({**keys, "controls": {}}, record_to=tmp_path)
    presets.save("plain", dump(plain.held.given()))
    session = PageSession(keys, record_to=tmp_path)
    try:
        session.start()
        presets.save("steered", dump(session.held.given()))
        for name, scale in (("plain", 0.0), ("steered", 0.8)):
            session.learn({name: presets.load(name)})
            session.change({"look": name})
            found = session.settings()["controls"]["canny"]
            assert (found["scale"], found["low"]) == (scale, 20)
    finally:
        session.close()
