"""Stages that take turns are called in one lane, as are `upload` and `encode`; inside a lane there is no link."""

import pytest
from support.workers import STAGES

from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.graph_plan import loop_of
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.run import run

LOOP = {"warp", "encode_past", "predict", "fuse", "decode"}
AHEAD = {"upload", "encode"}
LOOPS = [
    ({}, LOOP),
    ({"sinks": ["a.mp4", "null:"]}, LOOP),
    ({"fusion": 0}, set()),
    ({"stages": {"fuse": {"reference": "latent"}}}, {"warp", "predict", "fuse"}),
    ({"stages": {"fuse": {"reference": "output"}}}, {"warp", "encode_past", "predict", "decode", "blend"}),
    (
        {"steps": 3, "stages": {"predict": {"stream": True}}},
        {"warp", "encode_past", "fuse", "decode"},  # the entry meets a picture three frames back: they overlap
    ),
]


def plan(keys, **options):
    return plan_graph(validate({"source": "in.mp4", "sinks": ["out.mp4"], **keys}), folder="/run/x", **options)


@pytest.mark.parametrize("keys, loop", LOOPS)
@pytest.mark.parametrize("live", [False, True])
def test_the_loop_is_what_waits_for_the_picture_before(keys, loop, live):
    graph = plan(keys, live=live)
    assert loop_of(graph.feeds) == loop
    assert any(link.bare for link in graph.links) == live, "room is a loop as well, round everything, and none to share"


@pytest.mark.parametrize("keys, loop", LOOPS)
@pytest.mark.parametrize("live", [False, True])
def test_the_loop_shares_a_lane_without_links_and_others_have_their_own(keys, loop, live):
    graph = plan(keys, live=live)
    lanes = {frozenset(node.name for node in nodes) for nodes in graph.lanes.values()}
    shared = {frozenset(group) for group in (loop, AHEAD) if group}
    alone = {frozenset({node.name}) for node in graph.nodes if node.name not in loop | AHEAD}
    assert lanes == alone | shared
    assert not [link.name for link in graph.links for group in shared if {link.sender, link.receiver} <= group]
    assert all(any({call.sender, call.receiver} <= group for group in shared) for call in graph.calls)


def test_the_default_graph_of_a_file_has_seven_links():
    links = [
        "source->upload.raw",
        "upload->flow.frame",
        "flow->warp.motion",
        "encode->predict.source",
        "decode->download.frame",
        "download->sink_1.frame",
    ]
    assert [link.name for link in plan({}).links] == links
    assert [link.name for link in plan({}, printed=True).links] == [
        *links[:4],
        "upload->composite.source",
        "composite->download.frame",
        links[5],
    ]


@pytest.mark.parametrize(
    "workers, lanes",
    [
        ("one", {("upload", "encode"), ("warp", "encode_past", "predict", "fuse", "decode")}),
        ("stages", set()),
        (
            {"a": ["source", *STAGES[:6], "sink_1"], "b": STAGES[6:]},
            {("upload", "encode"), ("warp", "encode_past", "predict"), ("fuse", "decode")},
        ),
        (
            {"a": ["source", "warp", "decode", "sink_1"], "b": [s for s in STAGES if s not in ("warp", "decode")]},
            {("upload", "encode"), ("warp", "decode"), ("encode_past", "predict", "fuse")},
        ),
    ],
)
def test_a_placement_that_separates_the_stages_of_a_lane_makes_more_lanes(workers, lanes):
    graph = plan({"workers": workers})
    assert {tuple(n.name for n in nodes) for nodes in graph.lanes.values() if len(nodes) > 1} == lanes
    for nodes in graph.lanes.values():
        assert len({node.worker for node in nodes}) == 1
    calls = {(call.sender, call.receiver) for call in graph.calls}
    assert all(any({*pair} <= {*lane} for lane in lanes) for pair in calls)
    assert len(graph.feeds) == len(plan({"workers": "stages"}).links), "a link or a call, never neither"


def test_every_stage_of_a_lane_has_its_own_figures(exact_bundle):
    keys = {"source": "pattern:64x48@25,frames=6", "sinks": ["null:"], "bundle": exact_bundle, "size": "64x48"}
    stats = run(validate(keys)).to_dict()
    assert {*stats["stages"]} == {"source", *STAGES, "sink_1"}
    assert {stats["stages"][name]["count"] for name in STAGES} == {6}
    assert len(stats["links"]) == 6 and {link["sent"] for link in stats["links"].values()} == {6}
