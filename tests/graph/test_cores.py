"""The stages of the loop keep to one core; whoever does not hang on it goes where there is room."""

import os
import signal
import threading

import pytest
import zmq
from test_supervisor import STAGES, go, pid_of, waits  # noqa: F401  (one is a fixture)

from warpfuse.graph import cores
from warpfuse.graph import running as running_module
from warpfuse.graph import supervisor as supervisor_module
from warpfuse.graph.config import validate
from warpfuse.graph.placement import workers_of
from warpfuse.graph.plan import plan_graph
from warpfuse.graph.run import run
from warpfuse.graph.stage_runner import StageRunner

EVERYWHERE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
TWO_CORES = pytest.mark.skipif(len(EVERYWHERE) < 2, reason="with one core there is nothing to choose")
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


@TWO_CORES
def test_a_thread_keeps_to_its_core_and_no_other_does():
    core, seen = max(EVERYWHERE), []

    def keeping():
        cores.keep_to(core)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=keeping)
    thread.start()
    thread.join()
    assert seen == [{core}] and os.sched_getaffinity(0) == EVERYWHERE


@pytest.mark.skipif(not EVERYWHERE, reason="this system has no affinities")
def test_a_core_that_was_taken_away_is_passed_over():
    gone = os.cpu_count() + 4096
    with pytest.raises(OSError):  # the control: the system itself does not pass over it
        os.sched_setaffinity(0, {gone})
    cores.keep_to(gone)
    assert os.sched_getaffinity(0) == EVERYWHERE
    with zmq.Context() as context, context.socket(zmq.PAIR):  # ZeroMQ itself would end the process
        cores.keep_messengers_to(gone, context)


@pytest.mark.parametrize(
    "usable, device, expected",
    [({2, 5}, "cpu", {2, 5}), ({2, 5}, "cuda:0", {None}), ({0}, "cpu", {None}), ({0, 1, 2, 3}, "cpu", {None})],
)
def test_loops_take_two_cores_by_turns(monkeypatch, usable, device, expected):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: usable, raising=False)
    taken = [cores.next_core(device) for _ in range(4)]
    assert set(taken) == expected and taken[:2] == taken[2:]


# Every call of a stage leaves files that say which stage it was, of which process, and on which cores it might run, and
# the threads of ZeroMQ beside it.
TRACES = """
import contextlib, os, pathlib
from warpfuse.graph.stage_runner import StageRunner
timed = StageRunner._timed
def leave(who, thread):
    where = "+".join(str(core) for core in sorted(os.sched_getaffinity(thread)))
    pathlib.Path({folder!r}, f"{{who}}.{{os.getpid()}}.{{where}}").touch()
def traced(self, *args, **keys):
    leave(self.stage_name, 0)
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if "ZMQbg/IO" in (task / "comm").read_text():
                leave(self.stage_name + " messages", int(task.name))
    return timed(self, *args, **keys)
StageRunner._timed = traced
"""


@pytest.mark.parametrize(
    "workers, expected",
    [
        ("one", set()),
        ("live", set()),
        ("stages", LOOP),
        ({"a": ["source", *STAGES[:6], "sink_1"], "b": STAGES[6:]}, {"a", "b"}),
        ({"a": ["source", *STAGES], "b": ["sink_1"]}, set()),
    ],
)
def test_a_worker_has_messages_of_the_loop_where_the_loop_goes_on_in_another(workers, expected):
    keys = {"source": "in.mp4", "sinks": ["out.mp4"], "workers": "auto" if workers == "live" else workers}
    plan = plan_graph(validate(keys), live=workers == "live", folder="/run/x")
    assert {worker for worker in workers_of(plan) if cores.leaves(plan, worker)} == expected


@pytest.fixture
def traces(tmp_path):
    """The code that leaves the files; and what they say: stage -> process -> sets of cores."""
    folder = tmp_path / "traces"
    folder.mkdir()

    def read():
        found = {}
        for path in folder.iterdir():
            stage, pid, where = path.name.split(".")
            found.setdefault(stage, {}).setdefault(int(pid), set()).add(where)
        return found

    return TRACES.format(folder=str(folder)), read


def places(core, *, apart):
    """What each stage has to say when the loop keeps to this core; none: to no core.

    apart  each is in a process of its own, so the messages of the loop keep to it too; beside those of the line to the
           supervisor, which do not
    """
    everywhere = "+".join(str(each) for each in sorted(EVERYWHERE))
    kept = {stage: {str(core)} for stage in LOOP if core is not None}
    stages = {stage: kept.get(stage, {everywhere}) for stage in STAGES}
    return stages | {f"{s} messages": {everywhere, *(kept.get(s, set()) if apart else ())} for s in STAGES}


@TWO_CORES
@pytest.mark.parametrize("core", [max(EVERYWHERE, default=0), None])
def test_a_run_keeps_its_loop_together(exact_bundle, monkeypatch, traces, core):
    code, read = traces
    monkeypatch.setattr(StageRunner, "_timed", StageRunner._timed)  # put back afterwards
    exec(code, {})
    monkeypatch.setattr(running_module, "next_core", lambda device: core)
    keys = {"source": "pattern:64x48@25,frames=3", "sinks": ["null:"], "bundle": exact_bundle, "size": "64x48"}
    run(validate(keys))
    assert {stage: processes[os.getpid()] for stage, processes in read().items()} == places(core, apart=False)


@TWO_CORES
@pytest.mark.parametrize("core", [max(EVERYWHERE, default=0), None])
def test_a_loop_over_processes_keeps_to_one_core_after_a_restart_too(go, tmp_path, monkeypatch, traces, core):  # noqa: F811
    code, read = traces
    monkeypatch.setattr(supervisor_module, "next_core", lambda device: core)
    kill = lambda s: s._shown() >= 5 and (os.kill(pid_of(s, "predict"), signal.SIGKILL), True)[1]  # noqa: E731
    kill = waits(tmp_path, monkeypatch, kill, also=code)
    stats, _ = go(kill, source="pattern:96x64@25,frames=40", workers="stages")
    told = read()
    assert stats.restarts == 1 and len(told["predict"]) == 2 and len({*told["fuse"], *told["predict"]}) == 3
    for stage, where in places(core, apart=True).items():
        assert all(seen == where for seen in told[stage].values()), (stage, told)
