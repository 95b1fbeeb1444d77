"""docs/rerender.yaml through a whole graph: cuts, changes, streams and a stream batch, each with its own anchor."""

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support import lora_bundles as make
from support import pipelines
from support.pipelines import far

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.raw_keys import merge, read_graph_file
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import run
from warpfuse.stages.sources import open_source

RECIPE = Path(__file__).parents[2] / "docs" / "rerender.yaml"
SIZE, CUT, FRAMES = "64x64", 3, 5
STREAMED = [{"kind": "latent", "of": "anchor", "weight": 1}, {"kind": "latent", "weight": 0.5, "noise": "slot"}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of a small random checkpoint whose attention changes a picture by a few 255ths."""
    folder = tmp_path_factory.mktemp("bundles")
    source = make.write_random_checkpoint(folder / "sd15", "sd15")
    weights = source / "unet" / "diffusion_pytorch_model.safetensors"
    told = load_file(weights)
    gains = {name: 8 if "attn1.to_out.0" in name else 4 if "attn1.to_q" in name else 1 for name in told}
    save_file({name: gains[name] * tensor for name, tensor in told.items()}, weights, metadata={"format": "pt"})
    make.export(source, folder / "bundle", attention="up")
    return str(folder / "bundle")


@pytest.fixture(scope="module")
def pictures():
    source = open_source(f"pattern:{SIZE}@25,frames={FRAMES},cut={CUT}")
    return [source.read().rgb for _ in range(FRAMES)]


def recipe(**keys):
    """The file's keys, with fewer steps: its windows are levels and stay."""
    return merge({**read_graph_file(RECIPE), "steps": 8, "size": (64, 64)}, keys)


def fuse(**settings):
    return {"stages": {"fuse": settings}}


def styled(bundle, pictures, keys, change=None):
    return pipelines.styled(pictures, change, **merge(keys, {"bundle": bundle}))


def test_the_recipe_runs_and_each_of_its_lines_does_something(bundle, pictures):
    few = pictures[:3]
    whole = styled(bundle, few, recipe())
    assert len(whole) == 3
    windows = recipe()["stages"]["fuse"]["between"]
    without = {
        "attention": {"stages": {"predict": {"attention": "off"}}},
        "statistics": fuse(adain={"weight": 0}),
        **{f"window {n}": fuse(between=windows[:n] + windows[n + 1 :]) for n in range(len(windows))},
    }
    for name, keys in without.items():
        assert far(whole[1:], styled(bundle, few, recipe(**keys))[1:]) > 0, name


def test_the_first_picture_after_a_cut_is_the_first_of_a_new_run(bundle, pictures):
    whole = styled(bundle, pictures, recipe())
    begun = styled(bundle, pictures[CUT:], recipe())
    assert far(whole[CUT : CUT + 1], begun[:1]) == 0
    assert far(whole[CUT + 1 :], begun[1:]) == 0, "and so are those after it"


def test_with_another_prompt_another_shot_begins(bundle, pictures):
    few = pictures[:CUT]
    of_anchor = merge(recipe(), fuse(between=recipe()["stages"]["fuse"]["between"][::2]))
    found = styled(bundle, few, merge(of_anchor, {"prompt": "ink"}), {2: {"prompt": "oil"}})
    oil = merge(of_anchor, {"prompt": "oil"})
    assert far(found[2:], styled(bundle, few[2:], oil)) == 0
    assert far(found[2:], styled(bundle, few, oil)[2:]) > 0, "the control: another anchor"


def test_weights_change_from_one_picture_to_the_next(bundle, pictures):
    none = {"adain": {"weight": 0}, "between": {str(n): {"weight": 0} for n in range(3)}}
    plain = merge(recipe(), fuse(**none))
    change = {1: fuse(adain={"weight": 1}, between={"0": {"weight": 1}, "1": {"weight": 0.5}})}
    found, off = styled(bundle, pictures[:CUT], plain, change), styled(bundle, pictures[:CUT], plain)
    assert [far([a], [b]) > 0 for a, b in zip(found, off, strict=True)] == [False, True, True]


def test_a_stream_batch_gives_the_pictures_of_frames_sampled_alone(bundle, pictures):
    told = recipe(steps=2, **fuse(between=STREAMED, adain={"weight": 1, "window": [0, 1000]}))
    alone, streamed = (
        styled(bundle, pictures, merge(told, {"stages": {"predict": {"stream": stream}}})) for stream in (False, True)
    )
    assert far(alone, streamed) <= 1
    assert far(alone, styled(bundle, pictures, merge(told, fuse(adain={"weight": 0})))) > 3, "the control"


def test_a_stream_batch_says_what_it_does_not_do(bundle):
    with pytest.raises(ConfigError, match="a stream batch has no picture of the anchor"):
        validate(recipe(steps=2, stages={"predict": {"stream": True}}))


def test_streams_have_the_bytes_they_have_alone(bundle, tmp_path):
    told = {"ink": {"prompt": "ink"}, "oil": {"prompt": "oil", "seed": 3}}
    common = {name: value for name, value in recipe(steps=3).items() if name != "size"}
    keys = {
        name: merge(common, {"source": f"pattern:{SIZE}@25,frames={5 + n},cut=3", **own})
        for n, (name, own) in enumerate(told.items())
    }
    streams = {name: {**own, "sinks": [str(tmp_path / f"{name}.mkv")]} for name, own in keys.items()}
    run(read_streams({"bundle": bundle, "streams": streams}))
    for name, own in keys.items():
        run(validate({**own, "bundle": bundle, "sinks": [str(tmp_path / "alone.mkv")]}))
        assert _bytes(tmp_path / f"{name}.mkv") == _bytes(tmp_path / "alone.mkv"), name
    other = merge(keys["ink"], fuse(adain={"weight": 0}))
    run(validate({**other, "bundle": bundle, "sinks": [str(tmp_path / "alone.mkv")]}))
    assert _bytes(tmp_path / "ink.mkv") != _bytes(tmp_path / "alone.mkv"), "the control: other weights"


def _bytes(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
