"""Graphs of several processes: the same bytes as in one, and what is left when one of them is killed or stopped."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import psutil
import pytest
import yaml
import zmq
from support.workers import STAGES, inside

from warpfuse.graph.errors import KeysMissing, StageFailed
from warpfuse.graph.links.curve import make_keys
from warpfuse.graph.processes.launcher import LocalProcesses
from warpfuse.stages.errors import StreamLost


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def pid_of(supervisor, worker):
    return supervisor._pool.processes.pid(worker)


WAITING = """
import pathlib, time
from warpfuse.stages.diffusion.fuse import Fuse
fuse, calls = Fuse.__call__, []
def waiting(self, **inputs):
    calls.append(1)
    while len(calls) > {most} and not pathlib.Path({sign!r}).exists():
        time.sleep(0.01)
    return fuse(self, **inputs)
Fuse.__call__ = waiting
"""


def waits(tmp_path, monkeypatch, during, most=20, also=""):
    """A `during` that the run cannot outpace: `most` frames are fused, the others wait until it has returned True.

    also  code to be run in every worker besides
    """
    sign = tmp_path / "go on"
    inside(tmp_path, monkeypatch, WAITING.format(sign=str(sign), most=most) + also)
    return lambda supervisor: during(supervisor) and (sign.touch(), True)[1]


def test_the_same_file_and_seed_give_the_same_bytes_whatever_the_placement(go, tmp_path):
    digests = {}
    two = {"near": ["source", "upload", "encode", "flow", "warp", "sink_1"], "far": STAGES[4:]}
    cut = {"ends": ["source", "warp", "decode", "sink_1"], "rest": [s for s in STAGES if s not in ("warp", "decode")]}
    for name, workers in {"one": "one", "two": two, "cut": cut, "stages": "stages"}.items():
        stats, _ = go(source="pattern:96x64@25,frames=30", workers=workers)
        assert (stats.frames.into, stats.frames.out, stats.restarts) == (30, 30, 0)
        assert stats.stages["predict"].count == 30 and stats.links["encode->predict.source"]["sent"] == 30
        digests[name] = digest(tmp_path / "out.mp4")
    assert len(set(digests.values())) == 1, digests
    go(source="pattern:96x64@25,frames=30", seed=1)
    assert digest(tmp_path / "out.mp4") not in digests.values(), "control: the seed matters"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("worker", ["capture", "main", "sink_1"])
def test_a_live_run_outlives_each_of_its_workers(go, worker, how):
    def kill(supervisor):
        if supervisor._shown() < 5:
            return False
        os.kill(pid_of(supervisor, worker), how)
        stop_after(supervisor, 10)
        return True

    def stop_after(supervisor, frames):
        check, base = supervisor._check, supervisor._shown()

        def checking():
            check()
            if supervisor._epochs.number == 2 and supervisor._shown() > base + frames:
                supervisor._stop.set()

        supervisor._check = checking

    stats, said = go(kill, source="pattern:96x64@25,frames=100000", sinks=["null:"], realtime=True)
    why = "was killed by signal 9" if how == signal.SIGKILL else "has stopped answering"  # and not: its stage hangs
    assert stats.restarts == 1 and f"worker {worker} {why}; it is started again" in said
    assert stats.frames.into + stats.frames.repeated == stats.frames.out + stats.frames.dropped
    assert stats.frames.out > 10 and stats.interrupted


def test_a_live_run_gives_as_many_frames_as_were_asked_for_after_a_crash_too(go):
    kill = lambda s: s._shown() >= 5 and (os.kill(pid_of(s, "main"), signal.SIGKILL), True)[1]  # noqa: E731
    stats, _ = go(kill, source="pattern:96x64@25,frames=100000", sinks=["null:"], realtime=True, frames=60)
    assert (stats.restarts, stats.frames.out, stats.interrupted) == (1, 60, False)
    assert stats.frames.dropped > 0, "what was lost is made up for"


def fork_server_of(supervisor):
    return supervisor._pool.processes._process.pid


def killed_at(supervisor, frames):
    """Kill the fork server once so many frames are shown."""
    return supervisor._shown() >= frames and (os.kill(fork_server_of(supervisor), signal.SIGKILL), True)[1]


def test_a_live_run_outlives_its_fork_server(go):
    stats, said = go(
        lambda s: killed_at(s, 5), source="pattern:96x64@25,frames=100000", sinks=["null:"], realtime=True, frames=60
    )
    lost = [f"worker {name} was killed by signal 9; it is started again" for name in ("capture", "main", "sink_1")]
    assert stats.restarts == 3 and set(lost) <= set(said)
    assert (stats.frames.out, stats.interrupted) == (60, False), "as many frames as were asked for"
    assert stats.frames.into + stats.frames.repeated == stats.frames.out + stats.frames.dropped


def test_a_file_is_whole_after_the_end_of_the_fork_server(go, tmp_path, monkeypatch):
    workers = {"near": ["source", "upload"], "middle": STAGES[1:], "show": ["sink_1"]}
    killed = waits(tmp_path, monkeypatch, lambda s: killed_at(s, 5))
    stats, _ = go(killed, source="pattern:96x64@25,frames=60", workers=workers)
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [round(float(frame.pts * frame.time_base) * 25) for frame in container.decode(video=0)]
    assert times == list(range(60))
    assert (stats.restarts, stats.frames.into, stats.frames.dropped) == (3, 60, 0)


def test_a_fork_server_that_dies_at_the_end_of_a_run_leaves_nothing(go):
    stats, _ = go(
        lambda s: killed_at(s, 1),
        source="pattern:96x64@25,frames=10",
        workers={"near": ["source", *STAGES], "show": ["sink_1"]},
    )
    assert stats.frames.out == 10


def test_a_worker_that_a_dead_fork_server_was_asked_for_is_told_as_killed(tmp_path):
    processes = LocalProcesses(tmp_path)
    try:
        first = processes._process
        first.kill()
        first.wait()
        processes.start("main", "ipc://nowhere")
        assert list(processes.exited()) == [("main", -signal.SIGKILL)]
        assert processes._process.pid != first.pid and list(processes.exited()) == []
    finally:
        processes.close()


def test_a_fork_server_that_dies_again_and_again_ends_the_run_in_one_line(go, monkeypatch):
    monkeypatch.setattr("warpfuse.graph.processes.restart_policy.FIRST_S", 0.01)

    def kill(supervisor):
        with contextlib.suppress(ProcessLookupError):
            os.kill(fork_server_of(supervisor), signal.SIGKILL)
        return False

    with pytest.raises((StageFailed, StreamLost), match="was lost too often"):
        go(kill, source="pattern:96x64@25,frames=100000", sinks=["null:"], realtime=True)


def frames_in(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_what_a_killed_sink_had_recorded_is_kept_and_told_and_every_file_has_the_frames_asked_for(
    go, tmp_path, monkeypatch
):
    # The encoder of a file keeps some 60 frames back, and a fragment has a second.
    kill = lambda s: s._shown() >= 120 and (os.kill(pid_of(s, "sink_1"), signal.SIGKILL), True)[1]  # noqa: E731
    kill = waits(tmp_path, monkeypatch, kill, 125)
    sinks = [str(tmp_path / name) for name in ("out.mp4", "other.mp4")]
    stats, said = go(kill, source="pattern:96x64@50,frames=100000", sinks=sinks, realtime=True, frames=130)
    (kept,) = tmp_path.glob("*.unfinished-*.mp4")
    assert stats.restarts == 1 and any(f"is kept: {kept.name}" in line for line in said)
    assert [frames_in(sink) for sink in sinks] == [130, 130], "begun anew, and never lost"
    assert frames_in(kept) > 0
    assert stats.frames.out > 130 and stats.frames.into == stats.frames.out + stats.frames.dropped


@pytest.mark.parametrize("worker", ["near", "middle", "show"])
def test_a_file_is_whole_and_in_order_after_a_crash(go, tmp_path, monkeypatch, worker):
    """Frames are read again from the first that a sink lacks; a sink that died begins its file anew."""
    workers = {"near": ["source", "upload"], "middle": STAGES[1:], "show": ["sink_1"]}
    killed = lambda s: s._shown() >= 5 and (os.kill(pid_of(s, worker), signal.SIGKILL), True)[1]  # noqa: E731
    killed = waits(tmp_path, monkeypatch, killed)
    stats, _ = go(killed, source="pattern:96x64@25,frames=60", workers=workers)
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [round(float(frame.pts * frame.time_base) * 25) for frame in container.decode(video=0)]
    assert times == list(range(60))
    assert stats.restarts == 1 and (stats.frames.into, stats.frames.dropped) == (60, 0)


def test_a_worker_that_was_stopped_before_its_first_word_is_started_again(go, monkeypatch):
    """Its line has never been connected, so no heartbeat can be missed."""
    monkeypatch.setattr("warpfuse.graph.processes.process_run._HELLO_S", 1.0)
    told, stopped = LocalProcesses.exited, []

    def stopping(self):
        yield from told(self)
        pid = self.pid("show")
        if pid is not None and not stopped:
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)

    monkeypatch.setattr(LocalProcesses, "exited", stopping)
    stats, _ = go(source="pattern:96x64@25,frames=10", workers={"near": ["source", *STAGES], "show": ["sink_1"]})
    assert stopped and stats.frames.out == 10


def test_a_worker_that_dies_again_and_again_ends_the_run_in_one_line(go, monkeypatch):
    monkeypatch.setattr("warpfuse.graph.processes.restart_policy.FIRST_S", 0.01)

    def kill(supervisor):
        pid = pid_of(supervisor, "main")
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return False

    with pytest.raises(StageFailed, match="worker main was lost too often"):
        go(kill, source="pattern:96x64@25,frames=100000", sinks=["null:"], realtime=True)


def test_nothing_outlives_a_parent_that_was_killed(exact_bundle, tmp_path, short_folder):
    environment = {**os.environ, "WARPFUSE_RUN": str(short_folder), "WARPFUSE_SHM": str(tmp_path)}
    script = (
        "import sys; from warpfuse.graph.plan.config import validate; from warpfuse.graph.run import run\n"
        "run(validate({'source': 'pattern:96x64@25,frames=100000', 'sinks': ['null:'], 'prompt': 'noisy',"
        f"'bundle': {str(exact_bundle)!r}, 'realtime': True}}), progress=lambda n, of: n and print(n, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    try:
        assert parent.stdout.readline(), "a frame has been shown"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 4, "the fork server and three workers"
        memory = tmp_path / f"warpfuse-{os.getuid()}"
        assert any(path.is_dir() for path in memory.iterdir()), "control: there was shared memory"
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=3)
    assert alive == []
    assert not any(path.is_dir() for path in memory.iterdir())
    assert not list((short_folder / "warpfuse").iterdir())


def test_two_hosts_over_encrypted_tcp_give_the_same_bytes_as_one_process(go, tmp_path, exact_bundle):
    keys = tmp_path / "keys"
    make_keys(keys)
    base = 20_000 + os.getpid() % 20_000
    graph = {
        "source": "pattern:96x64@25,frames=30", "sinks": [str(tmp_path / "out.mp4")], "bundle": str(exact_bundle),
        "prompt": "noisy", "fusion": 0.8, "keys": str(keys), "listen": f"tcp://127.0.0.1:{base}",
        "workers": {
            "near": ["source", "upload", "encode", "flow", "sink_1"],
            "far": {"stages": STAGES[3:], "host": f"tcp://127.0.0.1:{base + 50}"},
        },
    }  # fmt: skip
    go(**{**graph, "workers": "one"})
    alone = digest(tmp_path / "out.mp4")
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump(graph))
    command = [sys.executable, "-c", "from warpfuse.cli import main; main()", "worker", str(path), "far"]
    far = subprocess.Popen(command)
    try:
        stats, said = go(**graph)
        assert far.wait(20) == 0
    finally:
        far.kill()
        far.wait()
    assert any("waiting for worker far" in line for line in said)
    assert (stats.frames.out, stats.restarts) == (30, 0) and digest(tmp_path / "out.mp4") == alone


def test_hosts_without_keys_are_refused_in_one_line(go):
    workers = {"near": ["source", *STAGES], "far": {"stages": ["sink_1"], "host": "tcp://127.0.0.1:9000"}}
    with pytest.raises(KeysMissing, match="warpfuse keys DIR") as refused:
        go(source="pattern:96x64@25,frames=3", workers=workers, listen="tcp://127.0.0.1:9100")
    assert "\n" not in str(refused.value)


GREEDY = """
import ctypes, time
from warpfuse.stages.diffusion.fuse import Fuse
fuse, calls = Fuse.__call__, []
def slow(self, **inputs):
    calls.append(1)
    if len(calls) == 8:
        {wait}
    return fuse(self, **inputs)
Fuse.__call__ = slow
"""


@pytest.mark.parametrize(
    "wait, deadline_s, restarts",
    [
        ("ctypes.PyDLL(None).usleep(3_000_000)", 30, 0),  # holds the interpreter: not even a beat gets out
        ("time.sleep(60)", 6, 2),  # each life of the worker hangs at its eighth frame, and has done seven
    ],
    ids=["holds the interpreter", "hangs"],
)
def test_a_long_call_is_no_dead_process_and_one_that_never_ends_is_restarted(
    go, tmp_path, monkeypatch, wait, deadline_s, restarts
):
    inside(tmp_path, monkeypatch, GREEDY.format(wait=wait))
    workers = {"near": ["source", *STAGES], "show": ["sink_1"]}
    stats, said = go(source="pattern:96x64@25,frames=20", workers=workers, stage_deadline_s=deadline_s)
    assert (stats.frames.into, stats.frames.out) == (20, 20), said
    # What a life has done and the sink has not shown yet is done again, so there may be a life more.
    assert stats.restarts >= restarts and bool(stats.restarts) == bool(restarts), said


BROKEN = """
from warpfuse.stages.diffusion.decode import Decode
decode = Decode.__call__
def broken(self, **inputs):
    if inputs["latent"].stamp.seq {at}:
        raise RuntimeError("out of paint")
    return decode(self, **inputs)
Decode.__call__ = broken
"""


STUCK = """
import pathlib, time
from warpfuse.stages.diffusion.decode import Decode
from warpfuse.stages.motion.dis_flow import Flow
hangs, flow, decode = pathlib.Path({sign!r}), Flow.__call__, Decode.__call__
def hanging(self, **inputs):
    if inputs["frame"].stamp.seq == 4 and not hangs.exists():
        hangs.touch()
        time.sleep(600)
    return flow(self, **inputs)
def raising(self, **inputs):
    if inputs["latent"].stamp.seq == 2:
        while not hangs.exists():
            time.sleep(0.01)
        raise RuntimeError("out of paint")
    return decode(self, **inputs)
Flow.__call__, Decode.__call__ = hanging, raising
"""


def test_a_stage_that_does_not_let_go_costs_its_worker_and_not_the_run(go, tmp_path, monkeypatch):
    """One stage hangs while another, elsewhere, raises: the epoch is broken off, and the first does not return."""
    inside(tmp_path, monkeypatch, STUCK.format(sign=str(tmp_path / "hangs")))
    rest = [stage for stage in STAGES if stage != "flow"]
    workers = {"near": ["source", *rest], "far": ["flow"], "show": ["sink_1"]}
    stats, said = go(source="pattern:96x64@25,frames=20", workers=workers)
    assert "worker far stage flow does not return; it is started again" in said, said
    assert (stats.restarts, stats.frames.into, stats.frames.out, stats.frames.dropped) == (1, 20, 19, 1)


def test_a_stage_that_raises_in_a_worker_costs_its_frame_alone(go, tmp_path, monkeypatch):
    inside(tmp_path, monkeypatch, BROKEN.format(at="in (4, 11)"))
    stats, said = go(source="pattern:96x64@25,frames=20", workers={"near": ["source", *STAGES], "show": ["sink_1"]})
    assert (stats.frames.into, stats.frames.out, stats.frames.dropped, stats.restarts) == (20, 18, 2, 0)
    assert stats.drops == {"late": 0, "paused": 0, "failed": 2, "restart": 0}
    assert sum("was dropped: stage decode: RuntimeError: out of paint" in line for line in said) == 2


def test_one_that_always_raises_ends_the_run_with_its_name_and_its_traceback_in_the_log(
    go, tmp_path, monkeypatch, caplog
):
    inside(tmp_path, monkeypatch, BROKEN.format(at=">= 3"))
    with pytest.raises(StageFailed, match="stage decode: RuntimeError: out of paint"):
        go(source="pattern:96x64@25,frames=20", workers={"near": ["source", *STAGES], "show": ["sink_1"]})
    assert "in broken" in caplog.text and not list(tmp_path.glob("*.mp4"))


def test_a_stranger_on_the_line_is_not_obeyed(go, tmp_path, monkeypatch):
    """Garbage at the supervisor's end of a line."""
    sent = []

    def shout(supervisor):
        handle = supervisor._pool.handles[0]
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 200)
            socket.connect(handle.channel.endpoint)
            for data in (b"", b"\xff" * 50, b"\x80"):
                socket.send(data)
        sent.append(1)
        return True

    shout = waits(tmp_path, monkeypatch, shout)
    stats, _ = go(shout, source="pattern:96x64@25,frames=40", workers={"near": ["source", *STAGES], "show": ["sink_1"]})
    assert sent and (stats.frames.out, stats.restarts) == (40, 0)


@pytest.mark.parametrize("worker", ["capture", "main", "sink_1"])
def test_a_run_that_is_stopped_while_a_worker_is_being_restarted_ends(go, worker):
    def kill_and_stop(supervisor):
        os.kill(pid_of(supervisor, worker), signal.SIGKILL)
        supervisor._stop.set()
        return True

    stats, _ = go(kill_and_stop, source="pattern:96x64@25,frames=100000", sinks=["null:"], realtime=True)
    assert stats.interrupted and stats.frames.into == stats.frames.out + stats.frames.dropped
