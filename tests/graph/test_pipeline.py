"""What a whole graph does to a picture, to the bit."""

import numpy as np
import pytest

import warpfuse
from warpfuse.engine.errors import BadInput
from warpfuse.graph.errors import ConfigError
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
