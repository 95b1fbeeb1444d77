"""The stages of the loop keep to one core; whoever does not hang on it goes where there is room."""

import os
import threading

import pytest

from warpfuse.graph import cores
from warpfuse.graph import run as run_module
from warpfuse.graph.config import validate
from warpfuse.graph.opening import ends_of, prepare_source
from warpfuse.graph.plan import plan_graph
from warpfuse.graph.run import Running

LOOP = {"warp", "encode_past", "predict", "fuse", "decode"}


@pytest.mark.parametrize(
    "keys, loop",
    [
        ({}, LOOP),
        ({"sinks": ["a.mp4", "null:"]}, LOOP),
        ({"fusion": 0}, set()),
        ({"stages": {"fuse": {"reference": "latent"}}}, {"warp", "predict", "fuse"}),
        ({"stages": {"fuse": {"reference": "output"}}}, {"warp", "encode_past", "predict", "decode", "blend"}),
        (
            {"steps": 3, "stages": {"predict": {"stream": True}}},
            {"warp", "encode_past", "fuse", "decode"},  # the entry meets a picture three frames back: they overlap
        ),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_the_loop_is_what_waits_for_the_picture_before(keys, loop, live):
    plan = plan_graph(validate({"source": "in.mp4", "sinks": ["out.mp4"], **keys}), live=live)
    assert cores.loop_of(plan) == loop
    assert any(link.bare for link in plan.links) == live, "room is a loop as well, round everything, and none to keep"


@pytest.fixture
def two_threads():
    """Two threads that wait; gives their numbers."""
    stop, threads = threading.Event(), []
    for _ in range(2):
        threads.append(threading.Thread(target=stop.wait))
        threads[-1].start()
    yield [thread.native_id for thread in threads]
    stop.set()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinities")
def test_a_thread_is_kept_and_no_other(two_threads):
    kept, free = two_threads
    everywhere = os.sched_getaffinity(0)
    core = max(everywhere)
    cores.keep_to(core, [kept])
    assert os.sched_getaffinity(kept) == {core}
    assert os.sched_getaffinity(free) == os.sched_getaffinity(0) == everywhere


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinities")
def test_a_thread_that_has_ended_is_passed_over():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    with pytest.raises(ProcessLookupError):  # the control: the system itself does not pass over it
        while True:  # the system may know it for a moment longer than Python does
            os.sched_getaffinity(thread.native_id)
    cores.keep_to(min(os.sched_getaffinity(0)), [thread.native_id])


@pytest.mark.parametrize("usable, expected", [({2, 5}, {2, 5}), ({0}, {None}), ({0, 1, 2, 3}, {None})])
def test_loops_take_two_cores_by_turns(monkeypatch, usable, expected):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: usable, raising=False)
    taken = [cores.next_core() for _ in range(4)]
    assert set(taken) == expected and taken[:2] == taken[2:]


@pytest.mark.parametrize("core, told", [(0, LOOP), (None, None)])
def test_a_run_keeps_its_loop_together(exact_bundle, monkeypatch, core, told):
    kept = []
    monkeypatch.setattr(run_module, "next_core", lambda: core)
    monkeypatch.setattr(run_module, "keep_to", lambda to, threads: kept.append((to, list(threads))))
    keys = {"source": "pattern:64x48@25,frames=3", "sinks": ["null:"], "bundle": exact_bundle, "size": "64x48"}
    config = validate(keys)
    info, materials = prepare_source(config)
    running = Running(materials, ends_of(config, info, materials.size), threading.Event())
    try:
        running.open()
        names = {runner.thread_id: runner.stage_name for runner in running.worker.runners}
        running.wait()
    finally:
        running.close()
        materials.close()
    assert [(to, {names[thread] for thread in threads}) for to, threads in kept] == (
        [] if told is None else [(0, told)]
    )
