"""Several streams in one configuration: what belongs to each, what to all, and what is refused."""

from itertools import combinations

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.layout import arrange
from warpfuse.graph.plan.streams import from_flags, plan_as_asked, plan_streams, read_streams

YARD, DOOR = {"source": "yard.mp4", "sinks": ["a.mp4"]}, {"source": "camera:0", "sinks": "null:"}


def streams(top=None, **more):
    return read_streams({**(top or {}), "streams": {"yard": YARD, "door": {**DOOR, **more}}})


def test_keys_at_the_top_hold_for_all_that_do_not_say_otherwise():
    top = {"prompt": "ink", "seed": 5, "stages": {"fuse": {"weight": 0.5, "entry": 0.4}}}
    found = streams(top, prompt="mosaic", stages={"fuse": {"weight": 0.7}}).configs
    assert list(found) == ["yard", "door"]
    assert [(c.prompt, c.seed) for c in found.values()] == [("ink", 5), ("mosaic", 5)]
    assert [(c.stages.fuse.weight, c.stages.fuse.entry) for c in found.values()] == [(0.5, 0.4), (0.7, 0.4)]
    assert found["door"].sinks == ("null:",)


def test_the_short_form_of_the_fusion_goes_over_that_of_the_top():
    found = streams({"fusion": 0.5}, fusion=0.6).configs
    assert [c.stages.fuse.weight for c in found.values()] == [0.5, 0.6]


@pytest.mark.parametrize(
    "raw, says",
    [
        ({"streams": {}}, "streams: expected names with their keys"),
        ({"streams": ["yard.mp4"]}, "streams: expected names with their keys"),
        ({"streams": {"a": YARD}, "source": "b.mp4"}, r"source: is each stream's own here: streams\.a\.source"),
        ({"streams": {"a": {**YARD, "name": "desk"}}}, r"streams\.a\.name: is the same for all"),
        ({"streams": {"a": {**YARD, "host": True}}}, r"streams\.a\.host: is the same for all"),
        ({"streams": {}, "host": 1}, "host: expected true or false, got 1"),
        ({"streams": {"a": YARD}, "workers": "stages"}, "run in one process: leave workers out"),
        ({"streams": {"a": YARD}, "batch": 0}, "batch: expected rows a call, 1 to 64, got 0"),
        ({"streams": {"a": YARD}, "gather_ms": -1}, "gather_ms: expected milliseconds, 0 to 1000, got -1"),
        ({"streams": {"a": YARD}, "batch": True}, "batch: expected rows a call"),
        ({"streams": {"a": {**YARD, "threads": 1}}}, r"streams\.a\.threads: is the same for all streams"),
        ({"streams": {"a": {**YARD, "workers": "one"}}}, r"streams\.a\.workers: is the same for all"),
        ({"streams": {"a": {**YARD, "promt": "ink"}}}, r"streams\.a: unknown key 'promt'; did you mean 'prompt'"),
        ({"streams": {"a": YARD}, "promt": "ink"}, "^unknown key 'promt'; did you mean 'prompt'"),
        ({"streams": {"a": {"source": "x.mp4"}}}, r"streams\.a: a stream needs a source and sinks"),
        ({"streams": {"a": "x.mp4"}}, r"streams\.a: expected keys"),
        ({"streams": {"a/b": YARD}}, r"streams\.a/b: no name for a stream"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(raw, says):
    with pytest.raises(ConfigError, match=says):
        read_streams(raw)


def test_flags_name_streams_after_their_sources():
    given = from_flags(["a/yard.mp4", "b/yard.mp4", "camera:1"], ["1.mp4", "2.mp4", "null:"])
    assert {name: (s["source"], s["sinks"]) for name, s in given.items()} == {
        "yard": ("a/yard.mp4", ["1.mp4"]),
        "yard-2": ("b/yard.mp4", ["2.mp4"]),
        "camera1": ("camera:1", ["null:"]),
    }
    with pytest.raises(ConfigError, match="2 sources take as many sinks, in their order, got 1"):
        from_flags(["a.mp4", "b.mp4"], ["out.mp4"])


def test_the_drawn_graph_is_that_of_each_stream_side_by_side():
    given = streams(fusion=0)
    plan = plan_streams(given)
    for name, config in given.configs.items():
        alone = plan_as_asked(config)
        assert {f"{name}.{node.name}" for node in alone.nodes} <= {node.name for node in plan.nodes}
        assert {f"{name}.{feed.name}" for feed in alone.feeds} <= {feed.name for feed in plan.feeds}
    assert all(link.sender.split(".")[0] == link.receiver.split(".")[0] for link in plan.feeds), "nothing crosses over"
    boxes = list(arrange(plan).boxes.values())
    assert len(boxes) == len(plan.nodes) and not any(a.meets(b) for a, b in combinations(boxes, 2))
    assert [node.about for node in plan.nodes if node.kind == "predict"] == ["sampling, 1 step(s); shared UNet"] * 2
