"""Live LoRAs through a whole graph: at 0 nothing, at 1 what merging gives, and a change is there from one frame on."""

import numpy as np
import pytest
from support import lora_bundles as make
from support import pipelines
from support.pipelines import far

import warpfuse
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import run
from warpfuse.stages.diffusion.rows import Row
from warpfuse.stages.diffusion.schedule import FrameSchedule
from warpfuse.stages.errors import LoraError

OFF = {"paint": 0.0, "line": 0.0}
CHANGED_AT = 3


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return [np.kron(random.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(6)]


def options(stream):
    return {"size": make.SIZE, "steps": 2, "fusion": 0, "strength": 0.7, "stages": {"predict": {"stream": stream}}}


def styled(bundle, pictures, stream=False, change=None, **keys):
    """Every picture; `change` is made before picture CHANGED_AT."""
    changes = None if change is None else {CHANGED_AT: {"loras": change}}
    return pipelines.styled(pictures, changes, bundle=str(bundle), **options(stream), **keys)


@pytest.mark.parametrize("stream", [False, True])
def test_off_is_the_bundle_without_and_on_is_the_merged_one(lora_bundles, pictures, stream):
    base = styled(lora_bundles.base, pictures, stream)
    merged = styled(lora_bundles.merged, pictures, stream)
    assert far(styled(lora_bundles.live, pictures, stream, loras=OFF), base) == 0
    assert far(styled(lora_bundles.live, pictures, stream, loras=make.MERGED_AT), merged) <= 1
    assert far(base, merged) > 8, "the control: they are seen"


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_what_is_not_asked_for_is_at_its_default(lora_bundles, pictures):
    pictures = pictures[:1]
    default = styled(lora_bundles.live, pictures)
    assert far(default, styled(lora_bundles.live, pictures, loras=make.DEFAULTS)) == 0
    assert far(default, styled(lora_bundles.live, pictures, loras={"line": 0.0})) == 0
    assert far(default, styled(lora_bundles.live, pictures, loras={"paint": 0.0})) > 0


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_change_is_there_from_exactly_the_next_frame_on(lora_bundles, pictures, stream, shared, monkeypatch):
    """In a stream batch the call that takes the first new frame still holds the last old one, at its own scale."""
    if shared:  # the control: rows in the batch take what is newest
        newest: list[FrameSchedule] = []
        schedule = property(lambda row: newest[0], lambda row, told: newest.__setitem__(slice(None), [told]))
        monkeypatch.setattr(Row, "schedule", schedule)
    before, after = {"paint": 0.0}, {"paint": 1.0}
    old = styled(lora_bundles.live, pictures, stream, loras=before)
    new = styled(lora_bundles.live, pictures, stream, loras=after)
    found = styled(lora_bundles.live, pictures, stream, change=after, loras=before)
    wrong = far(found, [*old[:CHANGED_AT], *new[CHANGED_AT:]])
    assert (wrong > 0) if shared and stream else (wrong == 0)
    assert all(far([a], [b]) > 0 for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_a_change_of_one_leaves_the_other(lora_bundles, pictures):
    found = styled(lora_bundles.live, pictures, change={"line": 1.0}, loras={"paint": 1.0})
    wanted = styled(lora_bundles.live, pictures, loras={"paint": 1.0, "line": 1.0})
    assert far(found[CHANGED_AT:], wanted[CHANGED_AT:]) == 0 < far(found[:CHANGED_AT], wanted[:CHANGED_AT])


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_a_name_that_is_not_known_is_one_line_and_changes_nothing(lora_bundles, pictures, exact_bundle):
    wanted = styled(lora_bundles.live, pictures[:2])
    with warpfuse.Pipeline(bundle=str(lora_bundles.live), **options(False)) as pipeline:
        assert far([pipeline.push(pictures[0])], wanted[:1]) == 0
        with pytest.raises(LoraError, match=r"no live LoRA called 'pant'; did you mean 'paint'.* has: paint, line"):
            pipeline.update(loras={"pant": 1.0})
        with pytest.raises(ConfigError, match=r"loras\.paint: .*less than or equal to 4, got 9"):
            pipeline.update(loras={"paint": 9})
        assert far([pipeline.push(pictures[1])], wanted[1:]) == 0
    for bundle in (lora_bundles.merged, exact_bundle):
        with (
            warpfuse.Pipeline(bundle=str(bundle), size=make.SIZE, loras={"paint": 1}) as pipeline,
            pytest.raises(LoraError, match=r"no live LoRA\. Export it again: .* --lora-live"),
        ):
            pipeline.push(pictures[0])


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_a_prompt_sets_them_as_the_settings_do(lora_bundles, pictures):
    found = styled(lora_bundles.live, pictures[:2], prompt="ink <lora:paint:1> <lora:Line:-0.5>", loras=OFF)
    assert far(found, styled(lora_bundles.live, pictures[:2], prompt="ink", loras=make.MERGED_AT)) == 0
    assert far(found, styled(lora_bundles.live, pictures[:2], prompt="ink", loras=OFF)) > 0


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_what_a_prompt_leaves_out_is_said_once_and_of_its_stream(lora_bundles):
    source = {"source": "pattern:64x64@25,frames=2", "sinks": ["null:"]}
    both = {"a": {**source, "prompt": "[ink]"}, "b": {**source, "prompt": "(ink"}}
    lines = []
    run(read_streams({"bundle": str(lora_bundles.base), "streams": both}), say=lines.append)
    told = [line.partition(" is taken as text")[0] for line in lines if "is taken as text" in line]
    assert told == ["a: prompt: '[ink]'", "b: prompt: a '(' without its other half"]
