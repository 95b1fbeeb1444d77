"""Attention to earlier frames through a whole graph: exactly off, begun anew by a cut, and no stream sees another's."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from support import lora_bundles as make
from support import pipelines
from support.pipelines import far

import warpfuse
from warpfuse.engine.errors import BundleError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import plan_as_asked, read_streams
from warpfuse.graph.run import run
from warpfuse.stages.errors import AttentionError
from warpfuse.stages.sources import open_source

SIZE = "64x64"
CUT = 4


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Name -> folder: of one small checkpoint without attention, with it, and with it of another number of rows."""
    folder = tmp_path_factory.mktemp("bundles")
    source = make.write_random_checkpoint(folder / "sd15", "sd15")
    _turn_up_attention(source / "unet" / "diffusion_pytorch_model.safetensors")
    made = {"plain": {}, "attends": {"attention": "up"}, "single": {"attention": "low", "references": 1, "steps": 1}}
    for name, changes in made.items():
        make.export(source, folder / name, **changes)
    return {name: str(folder / name) for name in made}


def _turn_up_attention(weights):
    """Random layers attend to everything alike, and change a picture by a few 255ths."""
    told = load_file(weights)
    for name in told:
        gain = 8 if "attn1.to_out.0" in name else 4 if "attn1.to_q" in name else 1
        told[name] = gain * told[name]
    save_file(told, weights, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def pictures():
    """A scene that moves, and another one from picture CUT on."""
    source = open_source(f"pattern:{SIZE}@25,frames=8,cut={CUT}")
    return [source.read().rgb for _ in range(8)]


def styled(bundle, pictures, attention=None, stream=False, change=None, fuse=None, **keys):
    """Every picture; `change`, number -> new keys, is made before that picture."""
    predict = {"stream": stream, **({} if attention is None else {"attention": attention})}
    stages = {"predict": predict, "fuse": fuse or {}}
    options = {"size": (64, 64), "steps": 2, "strength": 0.7, **keys, "stages": stages}
    return pipelines.styled(pictures, change, bundle=bundle, **options)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fusion", [0, 0.8])
def test_off_is_the_bundle_without(bundles, pictures, stream, fusion):
    plain = styled(bundles["plain"], pictures, stream=stream, fusion=fusion)
    assert far(styled(bundles["attends"], pictures, "off", stream, fusion=fusion), plain) == 0
    assert far(styled(bundles["attends"], pictures, stream=stream, fusion=fusion), plain) > 3, "the control: it is seen"


@pytest.mark.parametrize("recipe", ["rerender", "streamv2v"])
def test_the_stream_gives_the_pictures_of_frames_sampled_alone(bundles, pictures, recipe):
    """Fused at the exit alone: at its entry a stream batch has the picture of another frame. With another prompt."""
    options = {"fuse": {"entry": 0}, "prompt": "ink", "change": {6: {"prompt": "oil"}}}
    alone, streamed = (styled(bundles["attends"], pictures, recipe, stream, **options) for stream in (False, True))
    assert far(streamed, alone) <= 1
    assert far(alone, styled(bundles["plain"], pictures, **options)) > 3, "the control: attention is on"


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_picture_after_a_cut_is_the_first_of_a_new_run(bundles, pictures, stream):
    whole = styled(bundles["attends"], pictures, "rerender", stream)
    begun = styled(bundles["attends"], pictures[CUT:], "rerender", stream)
    assert far(whole[CUT : CUT + 1], begun[:1]) == 0
    assert far(whole[CUT + 1 : CUT + 2], whole[CUT : CUT + 1]) > 0


def test_a_run_without_fusion_knows_of_cuts_too(bundles, pictures, tmp_path):
    keys = {"source": f"pattern:{SIZE}@25,frames=8,cut={CUT}", "steps": 2, "strength": 0.7, "fusion": 0}
    attends = {**keys, "bundle": bundles["attends"], "stages": {"predict": {"attention": "rerender"}}}
    run(validate({**attends, "sinks": [str(tmp_path / "%04d.png")]}))
    shown = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*.png"))]
    assert far(shown, styled(bundles["attends"], pictures, "rerender", fusion=0)) == 0
    begun = styled(bundles["attends"], pictures[CUT:], "rerender", fusion=0)
    assert far(shown[CUT : CUT + 1], begun[:1]) == 0
    assert far(shown[CUT + 1 : CUT + 2], begun[:1]) > 0, "the control"


def test_weights_change_from_one_picture_to_the_next(bundles, pictures):
    change = {3: {"stages": {"predict": {"attention": "streamv2v"}}}, 6: {"stages": {"predict": {"attention": "off"}}}}
    found = styled(bundles["attends"], pictures, "off", change=change, fusion=0)
    off = styled(bundles["attends"], pictures, "off", fusion=0)
    same = [far([a], [b]) == 0 for a, b in zip(found, off, strict=True)]
    assert same == [n < 3 or n == CUT or n >= 6 for n in range(8)], "a cut sees nothing either"


def test_a_key_that_is_changed_later_stands_on_top_of_a_recipe(bundles, pictures):
    partly = {"stages": {"predict": {"attention": {"own": 0.5}}}}
    with warpfuse.Pipeline(bundle=bundles["attends"], size=(64, 64), steps=2) as pipeline:
        pipeline.push(pictures[0])
        pipeline.update(stages={"predict": {"attention": "streamv2v"}})
        pipeline.update(**partly)
        found = [pipeline.push(picture) for picture in pictures[1:]]
    wanted = {"own": 0.5, "anchor": 0.0, "previous": 1.0}
    with warpfuse.Pipeline(bundle=bundles["attends"], size=(64, 64), steps=2) as pipeline:
        pipeline.push(pictures[0])
        pipeline.update(stages={"predict": {"attention": wanted}})
        assert far([pipeline.push(picture) for picture in pictures[1:]], found) == 0


def test_three_streams_have_the_bytes_they_have_alone(bundles, tmp_path):
    told = {
        "ink": {"prompt": "ink"},
        "oil": {"prompt": "oil", "seed": 3, "stages": {"predict": {"attention": "rerender"}}},
        "off": {"prompt": "blue", "stages": {"predict": {"attention": "off"}}},
    }
    keys = {name: {"source": f"pattern:{SIZE}@25,frames={9 + n},cut=5", "steps": 2, **own}
            for n, (name, own) in enumerate(told.items())}  # fmt: skip
    streams = {name: {**own, "sinks": [str(tmp_path / f"{name}.mkv")]} for name, own in keys.items()}
    run(read_streams({"bundle": bundles["attends"], "streams": streams}))
    for name, own in keys.items():
        run(validate({**own, "bundle": bundles["attends"], "sinks": [str(tmp_path / "alone.mkv")]}))
        assert _bytes(tmp_path / f"{name}.mkv") == _bytes(tmp_path / "alone.mkv"), name
    other = {**keys["ink"], "stages": {"predict": {"attention": "rerender"}}}
    run(validate({**other, "bundle": bundles["attends"], "sinks": [str(tmp_path / "alone.mkv")]}))
    assert _bytes(tmp_path / "ink.mkv") != _bytes(tmp_path / "alone.mkv"), "the control: other weights"


def test_a_bundle_of_one_reference_runs(bundles, pictures):
    alone = styled(bundles["single"], pictures, "off", steps=1, fusion=0)
    assert far(styled(bundles["single"], pictures, steps=1, fusion=0), alone) > 0


def test_a_bundle_without_attention_says_so(bundles, pictures, exact_bundle):
    for bundle in (bundles["plain"], exact_bundle):
        with pytest.raises(AttentionError, match=r"was exported without attention\. Export it again"):
            styled(str(bundle), pictures[:1], "rerender", steps=1)
        with (
            warpfuse.Pipeline(bundle=str(bundle), size=(64, 64), steps=1) as pipeline,
            pytest.raises(AttentionError, match="was exported without attention"),
        ):
            pipeline.push(pictures[0])
            pipeline.update(stages={"predict": {"attention": "rerender"}})


def test_a_network_that_does_not_take_what_the_bundle_says_is_refused(bundles, pictures, tmp_path):
    folder = shutil.copytree(bundles["attends"], tmp_path / "bundle")
    about = json.loads((folder / "bundle.json").read_text())
    about["attention"]["layers"].pop()
    (folder / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match=r"unet: 'past' is \[rows, 2, \d+\], by the bundle expected is"):
        styled(str(folder), pictures[:1])


def test_motion_goes_to_the_network_of_a_bundle_with_attention(bundles):
    def inputs(bundle, **keys):
        plan = plan_as_asked(validate({"source": f"pattern:{SIZE}@25", "sinks": ["null:"], "bundle": bundle, **keys}))
        return next(node.inputs for node in plan.nodes if node.kind == "predict")

    assert "motion" in inputs(bundles["attends"]) and "motion" not in inputs(bundles["plain"])
    assert "motion" in inputs(bundles["attends"], fusion=0) and "motion" not in inputs(bundles["plain"], fusion=0)


def _bytes(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
