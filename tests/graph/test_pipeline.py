"""What a whole graph does to a picture, to the bit."""

import gc
import inspect
import threading
import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from support import exact
from support.waiting import until

import warpfuse
from warpfuse.engine.errors import BadInput
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.pipeline_keys import REFUSED, PipelineKeys
from warpfuse.stages.errors import StyleError
from warpfuse.stages.sources import open_source

SIZE = (64, 48)


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    smooth = np.kron(random.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
    return [np.ascontiguousarray(picture) for picture in smooth]


def test_the_identity_style_gives_the_picture_back_bit_for_bit(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE, fusion=0) as pipeline:
        for picture in pictures:
            assert np.array_equal(pipeline.push(picture), picture)


def test_without_fusion_every_frame_stands_alone(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="negative", size=SIZE, fusion=0) as pipeline:
        for picture in pictures:
            assert np.array_equal(pipeline.push(picture), 255 - picture)


def test_a_blend_of_styles_is_the_mean_of_their_pictures(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same:3, negative", size=SIZE, fusion=0) as pipeline:
        expected = np.round(0.75 * pictures[0] + 0.25 * (255.0 - pictures[0]))
        assert np.abs(pipeline.push(pictures[0]) - expected).max() <= 1


def test_guidance_pulls_away_from_the_negative_prompt_from_the_next_push_on(exact_bundle, pictures):
    """x0 = negative + g (prompt - negative); the prompt is the picture, its opposite 255 - picture."""
    keys = {"bundle": exact_bundle, "size": SIZE, "fusion": 0, "stages": {"predict": {"guidance": "full"}}}
    keys["stages"]["predict"]["guidance_scale"] = 0.75
    with warpfuse.Pipeline(prompt="same", negative="negative", **keys) as pipeline:
        expected = 255 - pictures[0] + 0.75 * (2.0 * pictures[0] - 255)
        assert np.abs(pipeline.push(pictures[0]) - expected).max() <= 1
        pipeline.update(negative="")  # and the zero style is black here
        assert np.abs(pipeline.push(pictures[1]) - 0.75 * pictures[1]).max() <= 1


@pytest.mark.parametrize("reference", ["picture", "latent", "output"])
@pytest.mark.parametrize("weight", [0.3, 0.8])
def test_fusion_is_the_recursion_it_claims_to_be(exact_bundle, pictures, weight, reference):
    """A still picture whose style changes: out_n = w out_{n-1} + (1 - w) now. Feedback by one frame, not by two."""
    keys = {
        "bundle": exact_bundle,
        "size": SIZE,
        "fusion": weight,
        "stages": {"fuse": {"entry": 0, "reference": reference, "anchor": {"exit": 0}}},
    }
    picture, inner = pictures[0], (slice(8, -8), slice(8, -8))
    with warpfuse.Pipeline(prompt="negative", **keys) as pipeline:
        shown = pipeline.push(picture).astype(float)
        assert np.array_equal(shown, 255 - picture)
        pipeline.update(prompt="same")
        for _ in range(4):
            shown = weight * shown + (1 - weight) * picture
            assert np.abs(pipeline.push(picture) - shown)[inner].max() <= 2


def test_the_first_frame_after_a_cut_has_no_ghost(exact_bundle):
    """Where nothing is trusted, the fused picture is the unfused one, bit for bit."""
    shown = {}
    for fusion in (0, 0.8):
        source = open_source("pattern:96x64@25,frames=12,cut=6")
        with warpfuse.Pipeline(bundle=exact_bundle, prompt="negative", size=(96, 64), fusion=fusion) as pipeline:
            shown[fusion] = [pipeline.push(source.read().rgb) for _ in range(12)]
    same = [np.array_equal(alone, fused) for alone, fused in zip(shown[0], shown[0.8], strict=True)]
    assert same == [seq in (0, 6) for seq in range(12)], "control: every other frame is fused with something"


def test_an_update_holds_from_the_next_push_on(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE, fusion=0) as pipeline:
        assert np.array_equal(pipeline.push(pictures[0]), pictures[0])
        pipeline.update(prompt="negative")
        assert np.array_equal(pipeline.push(pictures[1]), 255 - pictures[1])


def test_an_update_that_cannot_be_changes_nothing(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE, fusion=0) as pipeline:
        pipeline.push(pictures[0])
        with pytest.raises(StyleError, match="negative"):
            pipeline.update(prompt="negativ")
        with pytest.raises(ConfigError, match="seed cannot change"):
            pipeline.update(seed=4)
        with pytest.raises(ConfigError, match="decides which stages"):
            pipeline.update(stages={"fuse": {"reference": "latent"}})
        assert np.array_equal(pipeline.push(pictures[1]), pictures[1])


def test_the_seed_is_the_noise_and_the_noise_is_the_same_for_every_frame(exact_bundle, pictures):
    def noisy(seed):
        with warpfuse.Pipeline(bundle=exact_bundle, prompt="noisy", size=SIZE, fusion=0, seed=seed) as pipeline:
            return [pipeline.push(pictures[0]) for _ in range(2)]

    first, again = noisy(1)
    assert np.array_equal(first, again)
    assert np.array_equal(first, noisy(1)[0])
    assert not np.array_equal(first, noisy(2)[0])


def test_strength_lowers_the_noise_it_starts_from(exact_bundle, pictures):
    def distance(strength):
        keys = {"bundle": exact_bundle, "prompt": "noisy", "size": SIZE, "fusion": 0}
        with warpfuse.Pipeline(strength=strength, **keys) as pipeline:
            return np.abs(pipeline.push(pictures[0]).astype(float) - pictures[0]).mean()

    distances = [distance(strength) for strength in (0, 0.5, 1)]
    assert distances == sorted(distances) and distances[0] < 0.6 * distances[2]


def test_the_callers_array_is_theirs(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE, fusion=0) as pipeline:
        canvas = pictures[0].copy()
        shown = pipeline.push(canvas)
        canvas[:] = 0
        assert np.array_equal(shown, pictures[0])


@pytest.mark.parametrize(
    "picture", [np.zeros((48, 64), np.uint8), np.zeros((48, 64, 4), np.uint8), np.zeros((48, 64, 3), np.float32)]
)
def test_another_kind_of_array_is_refused(exact_bundle, picture):
    with (
        warpfuse.Pipeline(bundle=exact_bundle, size=SIZE) as pipeline,
        pytest.raises(BadInput, match=r"expected uint8 \[h, w, 3\]"),
    ):
        pipeline.push(picture)


def test_source_and_sinks_have_no_place_in_a_pipeline():
    with pytest.raises(ConfigError, match="source"):
        warpfuse.Pipeline(source="in.mp4")


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (Image.new("RGB", (64, 48)), r"PIL.Image.Image. Try push\(numpy.asarray\(image.convert\('RGB'\)\)\)"),
        ([[[0, 0, 0]]], r"builtins.list. Try push\(numpy.asarray\(picture\)\)"),
        ("holiday.jpg", "builtins.str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_array_is_refused_with_the_remedy(exact_bundle, picture, says):
    with warpfuse.Pipeline(bundle=exact_bundle, size=SIZE) as pipeline, pytest.raises(ConfigError, match=says):
        pipeline.push(picture)


def graph_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wf:")]


def test_a_pipeline_that_is_let_go_unclosed_ends_its_threads(exact_bundle, pictures):
    before = graph_threads()
    pipeline = warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE)
    pipeline.push(pictures[0])
    assert len(graph_threads()) > len(before), "control: it has some"
    del pipeline
    gc.collect()
    until(lambda: graph_threads() == before, "its threads end")


def test_a_second_thread_is_told_instead_of_taking_the_pictures_of_the_first(exact_bundle, pictures):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE, fusion=0) as pipeline:
        pipeline.push(pictures[0])
        with ThreadPoolExecutor(1) as other, pipeline._one_thread("push"):
            for method in (lambda: pipeline.push(pictures[0]), pipeline.drain, pipeline.close):
                with pytest.raises(ConfigError, match="another thread is using this Pipeline"):
                    other.submit(method).result()
        with ThreadPoolExecutor(1) as other:  # one after the other is fine
            assert np.array_equal(other.submit(pipeline.push, pictures[1]).result(), pictures[1])


@pytest.mark.parametrize("stream", [False, True])
def test_the_frames_of_a_source_come_styled_in_order_and_all_of_them(exact_bundle, stream):
    source = open_source("pattern:96x64@25,frames=7", size=(96, 64))
    expected = [255 - source.read().rgb for _ in range(7)]
    keys = {"steps": 2, "stages": {"predict": {"stream": True}}} if stream else {}
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="negative", fusion=0, **keys) as pipeline:
        styled = list(pipeline.frames("pattern:96x64@25,frames=7"))
    assert len(styled) == 7
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(styled, expected, strict=True))


def test_frames_have_the_size_asked_for_and_a_source_that_is_none_is_told(exact_bundle):
    with warpfuse.Pipeline(bundle=exact_bundle, size=SIZE) as pipeline:
        assert next(iter(pipeline.frames("pattern:128x96@25,frames=3"))).shape == (48, 64, 3)
        assert pipeline.push(np.zeros((48, 64, 3), np.uint8)).shape == (48, 64, 3)
        with pytest.raises(warpfuse.SourceError, match="no such file"):
            next(pipeline.frames("nothing.mp4"))
        with pytest.raises(BadInput, match="expected a path or an address, got list"):
            next(pipeline.frames([np.zeros((48, 64, 3), np.uint8)]))


def test_the_typed_keys_are_those_of_the_model():
    known = {*GraphConfig.model_fields, "fusion", "look"} - {*REFUSED}
    assert set(typing.get_type_hints(PipelineKeys)) == known
    assert set(inspect.signature(warpfuse.Pipeline).parameters) == known, "what help() and completion show"


def test_everything_public_is_listed_and_can_be_had():
    assert {"Pipeline", "Stats", "ConfigError", "SourceError", "StageFailed"} <= {*dir(warpfuse)}
    errors = [value for name in warpfuse.__all__ if isinstance(value := getattr(warpfuse, name), type)]
    assert sum(issubclass(kind, warpfuse.WarpfuseError) for kind in errors) >= 16


def test_figures_are_shown_in_a_line(exact_bundle, pictures):
    pipeline = warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=SIZE)
    pipeline.push(pictures[0])
    shown = repr(pipeline.close())
    assert shown.startswith("Stats(1 frames of 64x48 in ") and "fps" in shown and len(shown) < 200


def test_a_crossfade_of_prompts_is_the_blend_of_them_at_every_moment(exact_bundle, pictures):
    """The reference is the blend that a prompt asks for itself."""
    keys = {"bundle": exact_bundle, "size": SIZE, "fusion": 0}
    with warpfuse.Pipeline(prompt="same", **keys) as pipeline, warpfuse.Pipeline(prompt="same", **keys) as blended:
        pipeline.push(pictures[0], at_s=9.5)
        pipeline.update(prompt="negative", over_s=4)
        for seconds in range(5):
            blended.update(prompt=f"same:{4 - seconds}, negative:{seconds}")
            expected = blended.push(pictures[0]).astype(int)
            assert np.abs(pipeline.push(pictures[0], at_s=10 + seconds) - expected).max() <= 1, seconds
        assert np.array_equal(pipeline.push(pictures[1], at_s=14.1), 255 - pictures[1])


def test_a_crossfade_of_a_number_is_that_number_at_every_moment(exact_bundle, pictures):
    keys = {"bundle": exact_bundle, "prompt": "noisy", "size": SIZE, "fusion": 0}
    with warpfuse.Pipeline(strength=1.0, **keys) as pipeline, warpfuse.Pipeline(strength=1.0, **keys) as steady:
        assert np.array_equal(pipeline.push(pictures[0], at_s=0), steady.push(pictures[0]))
        pipeline.update(strength=0.5, over_s=1)
        for at_s, strength in ((1.0, 1.0), (1.25, 0.875), (1.5, 0.75), (2.5, 0.5)):
            steady.update(strength=strength)
            assert np.array_equal(pipeline.push(pictures[0], at_s=at_s), steady.push(pictures[0])), at_s


def test_without_seconds_an_update_is_what_it_is_without_the_word(exact_bundle, pictures):
    shown = []
    for more in ({}, {"over_s": 0}):
        with warpfuse.Pipeline(bundle=exact_bundle, prompt="noisy", size=SIZE, fusion=0.5) as pipeline:
            first = pipeline.push(pictures[0])
            pipeline.update(prompt="noisy:2, negative", strength=0.7, **more)
            shown.append([first, *(pipeline.push(picture) for picture in pictures[1:])])
    assert np.array_equal(*shown)


def test_inks_and_lines_fade_with_their_styles(tmp_path, pictures):
    bundle = exact.write(tmp_path / "printed", lines=True)
    keys = {"bundle": bundle, "size": SIZE, "fusion": 0}
    with warpfuse.Pipeline(prompt="same", **keys) as pipeline, warpfuse.Pipeline(prompt="same", **keys) as blended:
        pipeline.push(pictures[0], at_s=0)
        pipeline.update(prompt="negative", over_s=4)
        pipeline.push(pictures[0], at_s=1)
        blended.update(prompt="same, negative:3")
        expected = blended.push(pictures[0]).astype(int)
        assert np.abs(pipeline.push(pictures[0], at_s=4) - expected).max() <= 1


def test_a_look_is_its_keys_together_at_once_and_over_seconds(exact_bundle, pictures):
    looks = {"dark": {"prompt": "negative", "strength": 0.5}, "plain": {"prompt": "same", "strength": 1.0}}
    with warpfuse.Pipeline(bundle=exact_bundle, looks=looks, look="plain", size=SIZE, fusion=0) as pipeline:
        assert np.array_equal(pipeline.push(pictures[0], at_s=0), pictures[0])
        pipeline.update(look="dark", over_s=2)
        pipeline.push(pictures[0], at_s=1)
        assert np.abs(pipeline.push(pictures[0], at_s=2) - 127.5).max() <= 1.5, "half of it and half of its negative"
        pipeline.update(look="plain")
        assert np.array_equal(pipeline.push(pictures[1], at_s=2.1), pictures[1])
        with pytest.raises(ConfigError, match="there is no look 'dim'; there are: dark, plain"):
            pipeline.update(look="dim")
