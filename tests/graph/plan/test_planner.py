"""The plan is a dataflow graph that can run: every input fed once, every cycle broken by a delay."""

import inspect

import pytest

from warpfuse.engine import load_bundle
from warpfuse.engine.bundle_parts import Style
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.runtime.build import open_stage
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.engines import Engines
from warpfuse.stages.diffusion import predict
from warpfuse.stages.diffusion.prompts import StylePrompts

CONFIGS = [
    {},
    {"fusion": 0},
    {"sinks": ["a.mp4", "null:", "b.mp4"]},
    {"stages": {"fuse": {"reference": "latent"}}},
    {"stages": {"fuse": {"reference": "output"}}},
    {"stages": {"fuse": {"reference": "output", "entry": 0}}},
    {"controls": {"canny": 0.5, "still": {"kind": "image"}}},
    {"controls": {"canny": 0.5}, "fusion": 0},
    {"controls": {"canny": 0.5}, "stages": {"fuse": {"reference": "output"}}},
    {"controls": {"canny": 0.5}, "stages": {"fuse": {"reference": "latent"}}},
    {"controls": {"canny": 0.5}, "steps": 2, "stages": {"predict": {"stream": True}}},
    {"steps": 2, "stages": {"fuse": {"between": [{"kind": "picture", "of": "anchor"}]}, "encode": {"twice": True}}},
    {"fusion": 0, "stages": {"fuse": {"adain": {"weight": 1}}}},
]


def plan(raw, **options):
    return plan_graph(validate({"source": "in.mp4", "sinks": ["out.mp4"], **raw}), **options)


@pytest.mark.parametrize("raw", CONFIGS)
def test_every_input_is_fed_by_exactly_one_link(raw):
    graph = plan(raw)
    for node in graph.nodes:
        assert [link.port for link in graph.feeds_of(node)] == list(node.inputs)
    assert len({feed.name for feed in graph.feeds}) == len(graph.feeds)


@pytest.mark.parametrize("raw", CONFIGS)
def test_without_the_delayed_links_there_is_no_cycle(raw):
    graph = plan(raw)
    place = {node.name: number for number, node in enumerate(graph.nodes)}
    for feed in graph.feeds:
        assert (place[feed.sender] < place[feed.receiver]) != bool(feed.delay)


def test_without_fusion_nothing_waits_for_the_past():
    assert not any(feed.delay for feed in plan({"fusion": 0}).feeds)
    assert any(feed.delay for feed in plan({"fusion": 0}, temporal=True).feeds), "unless it may be turned on later"


def test_the_flow_to_an_anchor_is_there_only_where_something_is_taken_from_it():
    def anchors(**fuse):
        return [node.name for node in plan({"steps": 2, "stages": {"fuse": fuse}}).nodes if node.name == "anchor"]

    assert not anchors() and not anchors(between=[{"kind": "latent"}], adain={"weight": 0})
    assert anchors(between=[{"kind": "latent", "of": "anchor"}]) == anchors(adain={"weight": 0.1}) == ["anchor"]


def test_what_shows_a_keyframe_is_there_with_one_and_where_one_may_be_given_later():
    def keyed(temporal=None, **keys):
        config = validate({"source": "a.mp4", "sinks": ["null:"], **keys})
        return "apply_keyframe" in [node.name for node in plan_graph(config, temporal=temporal).nodes]

    picture = {"stages": {"anchor": {"picture": "key.png"}}}
    assert not keyed() and keyed(**picture) and keyed(fusion=0, **picture) and keyed(temporal=True)
    assert not keyed(temporal=True, stages={"fuse": {"reference": "latent"}})
    named = [
        "source",
        "upload",
        "encode",
        "flow",
        "warp",
        "encode_past",
        "predict",
        "fuse",
        "decode",
        "download",
        "sink_1",
    ]
    assert not keyed(temporal=True, workers={"main": named}), "whoever names the stages knew nothing of it"
    with pytest.raises(ConfigError, match="no worker runs anchor, apply_keyframe"):
        keyed(workers={"main": named}, **picture)


def test_every_sink_has_its_own_link():
    graph = plan({"sinks": ["a.mp4", "null:"]})
    assert [link.receiver for link in graph.links if link.sender == "download"] == ["sink_1", "sink_2"]


def test_slots_cover_writing_waiting_and_lent():
    assert all(link.slots == 1 + link.mailbox + link.credits for link in plan({}).links)


@pytest.mark.parametrize("raw", CONFIGS)
def test_the_stages_take_the_inputs_the_plan_feeds_them(exact_bundle, raw):
    bundle = load_bundle(exact_bundle)
    prompts = StylePrompts(bundle.about.styles, bundle.about.default_style, "cpu")
    config = validate({"bundle": exact_bundle, "controls": raw.get("controls", {})})
    context = RunContext(config, bundle, (64, 64), Engines("onnxruntime", "cpu", 1), prompts)
    refused = ("hint", "predict") if config.controls else ()  # the bundle has no controls
    for node in plan(raw).nodes:
        if node.role == "stage" and node.kind not in refused:
            stage = open_stage(node.kind, context, node.name)
            for way in (stage, stage.held):
                inspect.signature(way).bind(**dict.fromkeys(node.inputs))
            stage.close()


def test_the_settings_of_the_warp_reach_the_stage_that_samples():
    prompts = StylePrompts({"ink": Style(vector=(1.0,))}, "ink", "cpu")
    config = validate({"stages": {"warp": {"cell_norm": 3, "mode": "nearest"}}})
    assert predict.settings_of(config, prompts).warp == config.stages.warp != validate({}).stages.warp
