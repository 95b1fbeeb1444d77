"""Whole graphs with a stream batch inside: frames come late, whole and in order, and never wait for themselves."""

import itertools

import numpy as np
import pytest

import warpfuse
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.run import run

SIZE = (64, 48)


def keys(bundle, steps=3, **fuse):
    return {
        "bundle": bundle,
        "size": SIZE,
        "steps": steps,
        "stages": {"predict": {"stream": True}, "fuse": {"weight": 0.7, **fuse}},
    }


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return list(np.kron(random.integers(0, 256, (8, 6, 8, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8)))


def test_pictures_come_k_minus_one_pushes_later_and_the_last_by_drain(exact_bundle, pictures):
    with warpfuse.Pipeline(prompt="same", **keys(exact_bundle, weight=0)) as pipeline:
        out = [pipeline.push(picture) for picture in pictures]
        assert out[:2] == [None, None], "nothing before the pipe is full"
        late = pipeline.drain()
    assert len(late) == 2
    for picture, shown in zip(pictures, out[2:] + late, strict=True):
        assert np.array_equal(picture, shown)


REFERENCES = ["picture", "latent", "output"]
PLACES = list(itertools.product(REFERENCES, [0, 1], [0, 1], ["off", "reference", "latent", "picture"]))


@pytest.mark.parametrize("reference, entry, exit_, between", PLACES)
def test_every_choice_of_rows_runs_to_its_end(exact_bundle, reference, entry, exit_, between):
    fuse = {"reference": reference, "entry": entry, "exit": exit_, "between": between}
    raw = keys(exact_bundle, **fuse) | {"source": "pattern:64x48@25,frames=12", "sinks": ["null:"], "prompt": "same"}
    stats = run(validate(raw))
    assert stats.frames.into == stats.frames.out == 12


@pytest.mark.parametrize("reference", REFERENCES)
def test_exit_fusion_in_a_stream_is_that_of_frames_alone(exact_bundle, pictures, reference):
    """The frame that leaves meets the picture before it, however many frames are in the batch."""

    def shown(stream):
        raw = keys(exact_bundle, entry=0, reference=reference)
        raw["stages"]["predict"]["stream"] = stream
        with warpfuse.Pipeline(prompt="same", **raw) as pipeline:
            found = [pipeline.push(picture) for picture in [pictures[0]] * 3 + [255 - pictures[0] // 2] * 3]
            return [picture for picture in found if picture is not None] + pipeline.drain()

    for streamed, alone in zip(shown(True), shown(False), strict=True):
        assert np.abs(streamed.astype(int) - alone).max() <= 1


def test_the_entry_meets_the_newest_finished_picture(exact_bundle):
    """With K rows in the batch that is the picture of K frames before, warped along K motions."""
    raw = keys(exact_bundle) | {"source": "in.mp4", "sinks": ["null:"]}
    plan = plan_graph(validate(raw))
    delays = {link.name: link.delay for link in plan.feeds if link.delay}
    assert delays == {"decode->warp_entry.styled": 3, "decode->warp.styled": 1}
    (waiting,) = [link for link in plan.links if link.name == "flow->warp.motion"]
    assert waiting.mailbox == 3, "the motions of the frames inside wait here: fewer would stop the graph for good"


def test_a_change_reaches_frames_in_order(exact_bundle, pictures):
    with warpfuse.Pipeline(prompt="same", **keys(exact_bundle, weight=0)) as pipeline:
        out = [pipeline.push(picture) for picture in pictures[:4]]
        pipeline.update(prompt="negative")
        out += [pipeline.push(picture) for picture in pictures[4:]]
        out = out[2:] + pipeline.drain()
    for number, (picture, shown) in enumerate(zip(pictures, out, strict=True)):
        assert np.array_equal(shown, picture if number < 4 else 255 - picture)


def test_what_the_batch_is_built_for_cannot_change(exact_bundle, pictures):
    with warpfuse.Pipeline(prompt="same", **keys(exact_bundle)) as pipeline:
        pipeline.push(pictures[0])
        for change in ({"steps": 2}, {"stages": {"predict": {"stream": False}}}, {"stages": {"fuse": {"exit": 0}}}):
            with pytest.raises(ConfigError, match="decides which stages"):
                pipeline.update(**change)
        pipeline.update(strength=0.5)
