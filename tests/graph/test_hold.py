"""Graphs that spare the networks: what is shown instead, and what the figures say of it."""

import numpy as np
import pytest

import warpfuse
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run

SIZE = (64, 48)


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    return np.kron(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))


@pytest.mark.parametrize("reference", ["picture", "latent", "output"])
def test_a_skipped_frame_shows_the_last_picture_and_the_next_is_predicted(exact_bundle, picture, reference):
    stages = {"fuse": {"weight": 0, "reference": reference}}
    with warpfuse.Pipeline(
        bundle=exact_bundle, prompt="negative", size=SIZE, pace={"skip": 2}, stages=stages
    ) as pipeline:
        assert np.array_equal(pipeline.push(picture), 255 - picture)
        pipeline.update(prompt="same")
        inner = (slice(8, -8), slice(8, -8))
        held = pipeline.push(picture)
        assert np.abs(held.astype(int) - (255 - picture))[inner].max() <= 2, "the style before: nothing was predicted"
        assert np.array_equal(pipeline.push(picture), picture)
        stats = pipeline.close()
    assert (stats.frames.predicted, stats.frames.held, stats.frames.out) == (2, 1, 3)
    assert stats.stages["predict"].count == 2, "and the times are those of predicted frames"


def test_a_still_picture_is_shown_again_to_the_bit(exact_bundle, picture):
    with warpfuse.Pipeline(bundle=exact_bundle, prompt="noisy", size=SIZE, pace={"still": 0.02}) as pipeline:
        first = pipeline.push(picture)
        for _ in range(30):
            assert np.array_equal(pipeline.push(picture), first), "not warped again and again"
        moved = pipeline.push(np.roll(picture, 8, axis=1))
        assert not np.array_equal(moved, first)
        stats = pipeline.close()
    assert (stats.frames.predicted, stats.frames.held) == (2, 30)


def test_a_held_frame_follows_the_motion(exact_bundle):
    """The control is the picture as it was: it is further from the truth than the warped one."""
    y, x = np.mgrid[0:96, 0:128]

    def seen(shift):
        wave = np.sin((x + shift) / 7) + np.sin(y / 5 + (x + shift) / 11)
        return np.stack([(wave * 50 + 128)] * 3, axis=-1).astype(np.uint8)

    with warpfuse.Pipeline(bundle=exact_bundle, prompt="same", size=(128, 96), pace={"skip": 2}) as pipeline:
        before = pipeline.push(seen(0)).astype(int)
        held = pipeline.push(seen(4)).astype(int)
    inner = (slice(16, -16), slice(16, -16))
    assert np.abs(held - seen(4))[inner].mean() < 0.25 * np.abs(before - seen(4))[inner].mean()


def test_a_run_tells_what_was_held(exact_bundle):
    raw = {"source": "pattern:96x64@25,frames=12", "sinks": ["null:"], "bundle": exact_bundle, "pace": {"skip": 3}}
    figures = run(validate(raw)).to_dict()["frames"]
    assert figures == {"in": 12, "out": 12, "dropped": 0, "repeated": 0, "under_way": 0, "predicted": 4, "held": 8}
