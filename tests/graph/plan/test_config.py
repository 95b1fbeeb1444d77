"""Flags, files and `--set` meet in one model; what is wrong is said with the key, the range and the right spelling."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import read_graph_file, set_key, validate


def test_the_defaults_are_valid():
    assert validate({}).stages.fuse.weight == validate({"fusion": 0.8}).stages.fuse.weight


def test_fusion_is_short_for_the_weight():
    assert validate({"fusion": 0.3}).stages.fuse.weight == 0.3
    assert validate({"fusion": "0.3", "stages": {"fuse": {"entry": 0}}}).stages.fuse.weight == 0.3


def test_two_different_weights_are_an_error():
    with pytest.raises(ConfigError, match="give one of them"):
        validate({"fusion": 0.3, "stages": {"fuse": {"weight": 0.4}}})


@pytest.mark.parametrize("size", ["512x288", " 512 X 288 ", [512, 288], (512, 288)])
def test_sizes_are_written_as_people_write_them(size):
    assert validate({"size": size}).size == (512, 288)


@pytest.mark.parametrize(
    "raw, says",
    [
        ({"fusion": 1.5}, "fusion: expected a number from 0 to 1, got 1.5"),
        ({"fusion": "lots"}, "fusion: .* got 'lots'"),
        ({"steps": 0}, "steps: .*greater than or equal to 1, got 0"),
        ({"steps": 21}, "steps: .*less than or equal to 20"),
        ({"steps": "two"}, "steps"),
        ({"strength": -0.1}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"size": "512"}, "WIDTHxHEIGHT"),
        ({"size": "0x0"}, "size"),
        ({"seed": -1}, "seed"),
        ({"frames": 0}, "frames"),
        ({"workers": "many"}, "workers"),
        ({"device": "gpu"}, "device"),
        ({"promt": "ink"}, "unknown key 'promt'; did you mean 'prompt'"),
        ({"fussion": 0.5}, "did you mean 'fusion'"),
        ({"stages": {"fuse": {"wieght": 0.5}}}, "unknown key 'stages.fuse.wieght'; did you mean 'stages.fuse.weight'"),
        ({"stages": {"fues": {}}}, "did you mean 'stages.fuse'"),
        ({"zzz": 1}, "unknown key 'zzz'; known: .*bundle"),
        ({"stages": 3}, "stages"),
        ({"stages": {"fuse": 3}, "fusion": 0.5}, "stages.fuse takes keys"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(raw, says):
    with pytest.raises(ConfigError, match=says) as caught:
        validate(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["full", "initialize"])
def test_a_negative_prompt_needs_a_guidance_that_asks_for_it(mode):
    guided = {"predict": {"guidance": mode, "guidance_scale": 5}}
    assert validate({"negative": "blurry", "stages": guided}).negative == "blurry"
    for unused in ({}, {"guidance": "self", "guidance_scale": 5}, {"guidance": mode}):
        with pytest.raises(ConfigError, match=r"negative: guidance .* --set stages\.predict\.guidance=full") as caught:
            validate({"negative": "blurry", "stages": {"predict": unused}})
        assert "\n" not in str(caught.value)


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


def test_a_stream_batch_has_fewer_steps_than_frames_alone_may():
    assert validate({"steps": 20}).steps == 20
    streamed = {"stages": {"predict": {"stream": True}}}
    assert validate({"steps": 4, **streamed}).steps == 4
    with pytest.raises(ConfigError, match=r"steps: a stream batch has 1 to 4, got 5; stages\.predict\.stream=false"):
        validate({"steps": 5, **streamed})


def test_off_is_a_word_as_yaml_reads_it_too():
    raw = {}
    for assignment in ("stages.fuse.between=off", "stages.predict.attention=off", "stages.flow.trust.check=off"):
        set_key(raw, assignment)
    stages = validate(raw).stages
    assert (stages.fuse.between, stages.flow.trust.check) == ("off", "off")
    assert (stages.predict.attention.anchor, stages.predict.attention.previous) == (0, 0)
    with pytest.raises(ConfigError, match=r"stages\.fuse\.noise: .*got False"):
        validate({"stages": {"fuse": {"noise": False}}})


WINDOWS = [{"kind": "latent", "of": "anchor", "window": [850, 1000], "weight": 1}, {"kind": "reference"}]


def test_fusions_between_steps_are_a_word_one_or_a_list():
    def windows(between, **fuse):
        return validate({"stages": {"fuse": {"between": between, **fuse}}}).stages.fuse.windows

    assert windows("off") == windows(False) == ()
    short = windows("latent", weight=0.3, window=[1, 2], inner_strength=0.9, noise="slot")
    assert short == (("latent", "previous", (1, 2), 0.3, 0.9, "slot"),)
    assert windows({"kind": "latent"}, weight=0.3) == windows([{"kind": "latent"}], weight=0.3)
    first, second = windows(WINDOWS, weight=0.3, noise="fresh")
    assert first == ("latent", "anchor", (850, 1000), 1, 1, "fresh")
    assert second == ("reference", "previous", (0, 1000), 0.3, 1, "fresh")


@pytest.mark.parametrize(
    "fuse, message",
    [
        ({"between": "latnt"}, "'off', 'reference', 'latent' or 'picture'"),
        ({"between": [{"kind": "latnt"}]}, r"stages\.fuse\.between.*0\.kind.*'latnt'"),
        ({"between": [{"kind": "latent", "of": "first"}]}, "'previous' or 'anchor'.*'first'"),
        ({"between": [{"of": "anchor"}]}, r"between.*kind: field required"),
        ({"between": [{"kind": "latent", "window": [9, 1]}]}, "the lower first"),
        ({"between": [{"kind": "latent", "weight": 2}]}, "less than or equal to 1"),
        ({"adain": {"weight": -1}}, r"adain\.weight"),
        ({"adain": {"wieght": 1}}, r"did you mean 'stages\.fuse\.adain\.weight'"),
    ],
)
def test_what_is_no_fusion_between_steps_is_told(fuse, message):
    with pytest.raises(ConfigError, match=message) as caught:
        validate({"stages": {"fuse": fuse}})
    assert "\n" not in str(caught.value)


def test_a_stream_batch_says_what_of_the_anchor_it_has_not():
    stages = {"predict": {"stream": True}, "fuse": {"between": [{"kind": "reference", "of": "anchor"}]}}
    with pytest.raises(ConfigError, match=r"no picture of the anchor.*of: anchor, or stages\.predict\.stream=false"):
        validate({"stages": stages})
    for one in ({"kind": "latent", "of": "anchor"}, {"kind": "picture", "of": "anchor"}, {"kind": "reference"}):
        validate({"stages": {**stages, "fuse": {"between": [one]}}})


def test_encoding_twice_needs_a_picture_that_is_encoded():
    encode = {"encode": {"twice": True}}
    with pytest.raises(ConfigError, match=r"stages\.encode\.twice: with stages\.fuse\.reference latent no picture"):
        validate({"stages": {**encode, "fuse": {"reference": "latent"}}})
    validate({"stages": {**encode, "fuse": {"reference": "latent", "between": "picture"}}})


def test_an_entry_of_a_list_is_named_by_its_number():
    raw = {"stages": {"fuse": {"between": [dict(one) for one in WINDOWS]}}}
    set_key(raw, "stages.fuse.between.1.weight=0.4")
    assert validate(raw).stages.fuse.windows[1].weight == 0.4
    for name in ("2", "x", "-1"):
        with pytest.raises(ConfigError, match="between holds a value, not keys"):
            set_key(raw, f"stages.fuse.between.{name}.weight=0.4")
