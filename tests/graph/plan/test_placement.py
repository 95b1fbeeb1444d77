"""Which worker runs what, and what the links between them become."""

import pytest

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.links import cuda_ipc
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.placement import several, workers_of
from warpfuse.graph.plan.planner import plan_graph

STAGES = ["upload", "encode", "flow", "warp", "encode_past", "predict", "fuse", "decode", "download"]
HERE, THERE = "tcp://10.0.0.1:7000", "tcp://10.0.0.2:8000"


def plan(live=False, **keys):
    config = validate({"source": "pattern:", "sinks": ["null:", "null:"], **keys})
    return plan_graph(config, live=live, folder="/run/x")


def transports(planned):
    return {link.name: link.transport for link in planned.links}


@pytest.mark.parametrize(
    "workers, live, expected",
    [
        ("one", True, ["main"]),
        ("auto", False, ["main"]),
        ("auto", True, ["capture", "main", "sink_1", "sink_2"]),
        ("stages", False, ["source", *STAGES, "sink_1", "sink_2"]),
    ],
)
def test_a_scheme_gives_its_workers(workers, live, expected):
    assert workers_of(plan(live, workers=workers)) == expected
    assert several(workers, live=live) == (len(expected) > 1)


def test_workers_by_name_are_several_if_there_are_two():
    everything = ["source", *STAGES, "sink_1", "sink_2"]
    for workers in ({"all": everything}, {"a": everything[:4], "b": everything[4:]}):
        config = validate({"source": "pattern:", "sinks": ["null:", "null:"], "workers": workers})
        assert several(config.workers, live=False) == (len(workers_of(plan(workers=workers))) > 1)


def test_links_inside_a_worker_are_local_and_between_workers_shared_memory():
    planned = plan(workers={"a": ["source", *STAGES], "b": {"stages": ["sink_1", "sink_2"]}})
    shared = {name for name, kind in transports(planned).items() if kind == "shm"}
    assert shared == {"download->sink_1.frame", "download->sink_2.frame"}
    assert set(transports(planned).values()) == {"local", "shm"}
    endpoints = [link.endpoint for link in planned.links]
    assert len(set(endpoints)) == len(endpoints)
    assert all(link.endpoint.startswith("ipc:///run/x/") for link in planned.links if link.transport == "shm")


def test_on_a_card_only_what_lies_there_crosses_by_it(monkeypatch):
    monkeypatch.setattr(cuda_ipc, "missing", lambda device: None)
    kinds = transports(plan(workers="stages", device="cuda:0"))
    assert kinds["upload->encode.frame"] == kinds["decode->download.frame"] == "cuda-ipc"
    assert kinds["source->upload.raw"] == kinds["download->sink_1.frame"] == "shm"


def test_between_hosts_messages_carry_the_frames_from_the_senders_ports():
    far = {"stages": ["decode", "download"], "host": THERE}
    near = ["source", *(stage for stage in STAGES if stage not in far["stages"])]
    planned = plan(workers={"near": near, "far": far, "show": ["sink_1", "sink_2"]}, listen=HERE)
    ends = {link.name: link.endpoint for link in planned.links if link.transport == "inline"}
    assert ends["decode->warp.styled"].startswith("tcp://10.0.0.2:80")
    assert ends["fuse->decode.latent"].startswith("tcp://10.0.0.1:70") and ends["fuse->decode.latent"] != HERE
    assert len(set(ends.values())) == len(ends) == 4


def test_a_live_source_waits_for_room_and_a_file_does_not():
    room = {link.name: link for link in plan(live=True).links}["download->source.room"]
    assert (room.delay, room.credits, room.bare, room.transport) == (2, 2, True, "shm"), (
        "capture is a process of its own"
    )
    assert plan(live=True).nodes[0].inputs == ("room",) and plan(live=False).nodes[0].inputs == ()
    assert not any(link.bare for link in plan(live=False).links)


def test_where_a_card_shares_nothing_between_processes_the_host_does(monkeypatch):
    monkeypatch.setattr(cuda_ipc, "missing", lambda device: "no interprocess events")
    kinds = transports(plan(workers="stages", device="cuda:0"))
    assert set(kinds.values()) == {"shm"}


@pytest.mark.parametrize(
    "workers, says",
    [
        ("stage", "did you mean 'stages'"),
        ({"a": ["source", "uplod"]}, "no stage 'uplod'; did you mean 'upload'"),
        ({"a": ["source"], "b": ["source"]}, "'source' is in 'a' and in 'b'"),
        ({"a": ["source", *STAGES]}, "no worker runs sink_1, sink_2"),
        ({"a b": ["source"]}, "no name for a worker"),
        ({"a": []}, "workers.a.stages"),
        ({"a": {"stages": ["source"], "hots": "x"}}, "hots"),
        ({"a": {"stages": ["source"], "host": "10.0.0.2"}}, "host"),
        ({"a": ["source", *STAGES], "b": {"stages": ["sink_1", "sink_2"], "host": THERE}}, "listen: tcp://ADDRESS"),
        (7, "expected one of"),
    ],
)
def test_a_wrong_placement_is_one_line_that_names_the_place(workers, says):
    with pytest.raises(ConfigError, match=says):
        plan(workers=workers)
