"""A graph file and `--set` say the same keys; a later key is laid over an earlier one."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.raw_keys import read_graph_file, set_key


def test_set_reaches_any_key():
    raw = {"stages": {"fuse": {"entry": 0}}}
    set_key(raw, "stages.fuse.weight=0.7")
    set_key(raw, "seed=ink: 2")
    set_key(raw, "sinks=[a.mp4, b.mp4]")
    with pytest.raises(ConfigError, match="seed"):
        validate(raw)
    set_key(raw, "seed=2")
    config = validate(raw)
    assert (config.stages.fuse.weight, config.stages.fuse.entry, config.sinks) == (0.7, 0, ("a.mp4", "b.mp4"))


@pytest.mark.parametrize("assignment", ["weight", "=1", "a..b=1", "prompt.x=1", "seed=[", ""])
def test_a_set_that_is_no_assignment_is_an_error(assignment):
    with pytest.raises(ConfigError, match="--set"):
        set_key({"prompt": "ink"}, assignment)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("ink: 2", "ink: 2"),
        ("'ink: 2'", "ink: 2"),
        ('"it\'s \\u0041"', "it's A"),
        ("[ink] drawing", "[ink] drawing"),
        ("(ink:1.3), # 1 {a|b}", "(ink:1.3), # 1 {a|b}"),
        ("'old' and 'new'", "'old' and 'new'"),
        ("1984", "1984"),
        ("yes", "yes"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("key", ["prompt", "negative"])
def test_a_prompt_is_set_as_it_stands(key, text, wanted):
    """What YAML makes of brackets, colons and numbers is not meant; quotes around all of it are YAML's as elsewhere."""
    raw = {}
    set_key(raw, f"{key}={text}")
    assert raw == {key: wanted}


def test_a_graph_file_holds_the_same_keys(tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_text("source: in.mp4\nsinks: [out.mp4]\nprompt: ink\nsize: 512x288\nstages: {fuse: {weight: 0.5}}\n")
    config = validate(read_graph_file(path))
    assert (config.source, config.sinks, config.size, config.stages.fuse.weight) == (
        "in.mp4",
        ("out.mp4",),
        (512, 288),
        0.5,
    )


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "42", "\x00"])
def test_a_graph_file_that_is_none_is_an_error(tmp_path, text):
    path = tmp_path / "graph.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"graph\.yaml") as caught:
        read_graph_file(path)
    assert "\n" not in str(caught.value)


def test_a_missing_graph_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_graph_file(tmp_path / "nothing.yaml")


def test_off_is_a_word_as_yaml_reads_it_too():
    raw = {}
    for assignment in ("stages.fuse.between=off", "stages.predict.attention=off", "stages.flow.trust.check=off"):
        set_key(raw, assignment)
    stages = validate(raw).stages
    assert (stages.fuse.between, stages.flow.trust.check) == ("off", "off")
    assert (stages.predict.attention.anchor, stages.predict.attention.previous) == (0, 0)
    with pytest.raises(ConfigError, match=r"stages\.fuse\.noise: .*got False"):
        validate({"stages": {"fuse": {"noise": False}}})


def test_an_entry_of_a_list_is_named_by_its_number():
    windows = [{"kind": "latent", "of": "anchor", "window": [850, 1000], "weight": 1}, {"kind": "reference"}]
    raw = {"stages": {"fuse": {"between": windows}}}
    set_key(raw, "stages.fuse.between.1.weight=0.4")
    assert validate(raw).stages.fuse.windows[1].weight == 0.4
    for name in ("2", "x", "-1"):
        with pytest.raises(ConfigError, match="between holds a value, not keys"):
            set_key(raw, f"stages.fuse.between.{name}.weight=0.4")
