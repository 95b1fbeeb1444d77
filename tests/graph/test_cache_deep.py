"""The deep part of a checkpoint's UNet every N-th frame, through a whole graph."""

import pytest
from support import lora_bundles as make
from support import pipelines
from support.pipelines import far

from warpfuse.engine.bundle import load_bundle
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import plan_as_asked, read_streams
from warpfuse.graph.run import run
from warpfuse.stages.errors import DeepCacheError
from warpfuse.stages.sources import open_source

CUT = 3


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Folders of one small checkpoint: as it is, and split."""
    folder = tmp_path_factory.mktemp("bundles")
    source = make.write_random_checkpoint(folder / "sd-turbo", "sd-turbo")
    for name, changes in {"plain": {}, "split": {"deep": 1}}.items():
        make.export(source, folder / name, **changes)
    return {name: str(folder / name) for name in ("plain", "split")}


@pytest.fixture(scope="module")
def pictures():
    """A scene that moves, and another one from picture CUT on."""
    source = open_source(f"pattern:64x64@25,frames=6,cut={CUT}")
    return [source.read().rgb for _ in range(6)]


def styled(bundle, pictures, every=1, change=None, **keys):
    stages = {"predict": {"cache_deep": every, "stream": keys.pop("stream", False)}}
    options = {"size": (64, 64), "steps": 2, "strength": 0.7, **keys, "stages": stages}
    return pipelines.styled(pictures, change, bundle=bundle, **options)


@pytest.mark.parametrize("fusion, stream", [(0, False), (0.8, True)])
def test_at_1_it_is_the_bundle_that_is_not_split(bundles, pictures, fusion, stream):
    plain = styled(bundles["plain"], pictures, fusion=fusion, stream=stream)
    assert far(styled(bundles["split"], pictures, 1, fusion=fusion, stream=stream), plain) == 0
    assert far(styled(bundles["split"], pictures, 3, fusion=fusion, stream=stream), plain) > 0, "the control"


def test_a_still_clip_is_as_without(bundles, pictures):
    still = 5 * pictures[:1]
    assert far(styled(bundles["split"], still, 2, fusion=0), styled(bundles["split"], still, fusion=0)) <= 1


def test_a_cut_and_another_prompt_compute_everything(bundles, pictures):
    whole = styled(bundles["split"], pictures, 16, {5: {"prompt": "oil"}}, fusion=0, prompt="ink")
    plain = styled(bundles["plain"], pictures, 1, {5: {"prompt": "oil"}}, fusion=0, prompt="ink")
    assert [far([a], [b]) == 0 for a, b in zip(whole, plain, strict=True)] == [n in (0, CUT, 5) for n in range(6)]


def test_it_is_live(bundles, pictures):
    change = {2: {"stages": {"predict": {"cache_deep": 4}}}}
    found = styled(bundles["split"], pictures[:3], 1, change, fusion=0)
    assert far(found, styled(bundles["plain"], pictures[:3], fusion=0)) == 0, "the first frame with it computes all"


def test_streams_that_share_both_parts_have_the_pictures_they_have_alone(bundles, tmp_path):
    keys = {
        "a": {"source": "pattern:64x64@25,frames=5,cut=3", "stages": {"predict": {"cache_deep": 2}}},
        "b": {"source": "pattern:64x64@25,frames=4", "stages": {"predict": {"cache_deep": 3}}, "seed": 3},
    }
    streams = {name: {**own, "steps": 2, "sinks": [str(tmp_path / f"{name}.mkv")]} for name, own in keys.items()}
    run(read_streams({"bundle": bundles["split"], "streams": streams}))
    for name, own in keys.items():
        run(validate({**own, "steps": 2, "bundle": bundles["split"], "sinks": [str(tmp_path / "alone.mkv")]}))
        assert (tmp_path / f"{name}.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()


def test_the_graph_says_how_often(bundles):
    def predict(every, name="split"):
        keys = {"source": "pattern:64x64@25", "sinks": ["null:"], "bundle": bundles[name], "fusion": 0}
        plan = plan_as_asked(validate({**keys, "stages": {"predict": {"cache_deep": every}}}))
        return next(node for node in plan.nodes if node.kind == "predict")

    assert "deep part every 3 frames" in predict(3).about and "deep" not in predict(1).about
    assert "motion" in predict(1).inputs and "motion" not in predict(1, "plain").inputs


def test_a_bundle_that_is_not_split_says_so(bundles, pictures, exact_bundle):
    for bundle in (bundles["plain"], str(exact_bundle)):
        with pytest.raises(DeepCacheError, match=r"cache_deep=2: the UNet of this bundle is not split\. Export"):
            styled(bundle, pictures[:1], 2, steps=1)
        with pytest.raises(DeepCacheError, match="is not split"):
            styled(bundle, pictures[:2], 1, {1: {"stages": {"predict": {"cache_deep": 2}}}}, steps=1)
    assert load_bundle(bundles["split"]).about.remembers
