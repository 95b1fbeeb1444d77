"""Flags, files and `--set` meet in one model; what is wrong is said with the key, the range and the right spelling."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate


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


def test_a_stream_batch_has_fewer_steps_than_frames_alone_may():
    assert validate({"steps": 20}).steps == 20
    streamed = {"stages": {"predict": {"stream": True}}}
    assert validate({"steps": 4, **streamed}).steps == 4
    with pytest.raises(ConfigError, match=r"steps: a stream batch has 1 to 4, got 5; stages\.predict\.stream=false"):
        validate({"steps": 5, **streamed})


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
