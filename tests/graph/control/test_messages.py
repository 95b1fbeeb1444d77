"""Asking a run that is under way."""

import json
import threading
import urllib.request

import cv2
import numpy as np
import pytest
import zmq
from support.waiting import until

from warpfuse.graph.control import messages
from warpfuse.graph.control.run_directory import RunDirectory, find_run, free_name, name_after, runs_folder
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import Observers, run


@pytest.fixture
def runs(short_folder, monkeypatch):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    return short_folder / "warpfuse"


@pytest.fixture(params=["one", {"near": ["source", "upload"], "far": "rest"}], ids=["one", "two"])
def started(request, runs, exact_bundle):
    """A live run named `here`, in one process and in two; ends when the test does."""
    workers = request.param
    if workers != "one":
        rest = ["encode", "flow", "warp", "encode_past", "predict", "fuse", "decode", "download", "sink_1"]
        workers = {**workers, "far": rest}
    config = validate(
        {
            "source": "pattern:96x64@25,frames=1000000", "realtime": True, "sinks": ["null:"], "name": "here",
            "bundle": exact_bundle, "fusion": 0.8, "prompt": "noisy", "workers": workers,
        }
    )  # fmt: skip
    shown, stop, ended = threading.Event(), threading.Event(), []
    port = free_port()
    observers = Observers(control=True, metrics=port)

    def progress(frames, total):
        if frames > 3:
            shown.set()

    thread = threading.Thread(
        target=lambda: ended.append(run(config, progress=progress, stop=stop, observers=observers))
    )
    thread.start()
    assert shown.wait(60)
    yield port, ended, thread
    stop.set()
    thread.join(30)
    assert ended and not list(runs.iterdir())


def free_port():
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        return socket.bind_to_random_port("tcp://127.0.0.1")


def test_a_run_is_asked_changed_watched_and_ended(started):
    port, ended, thread = started
    before = messages.ask("here", messages.GetStats()).stats
    assert before["frames"]["out"] > 0 and before["stages"]["predict"]["count"] > 0

    assert before["links"]["encode->predict.source"]["ms_p99"] > 0

    applied = messages.ask("here", messages.Set({"stages": {"fuse": {"weight": 0.5}}}), timeout_s=30)
    again = messages.ask("here", messages.Set({"strength": 0.5}), timeout_s=30)
    assert (applied.version, again.version) == (1, 2) and 0 < applied.seq <= again.seq

    for keys, says in [({"seed": 1}, "seed cannot change"), ({"stages": {"fuse": {"wieght": 1}}}, "did you mean")]:
        with pytest.raises(ConfigError, match=says):
            messages.ask("here", messages.Set(keys), timeout_s=30)

    until(lambda: messages.ask("here", messages.GetStats()).stats["control_ms"]["count"] == 2, "both are shown")
    waits = messages.ask("here", messages.GetStats()).stats
    assert 0 < waits["control_ms"]["p50"] <= waits["control_ms"]["p95"] and waits["first_picture_s"] > 0

    png = messages.ask("here", messages.Snapshot()).png
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape == (64, 96, 3)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    assert 'warpfuse_hop_ms{link="encode->predict.source",quantile="0.99"}' in text
    assert 'warpfuse_frames_total{what="out"}' in text and 'warpfuse_stage_ms{quantile="0.5",stage="predict"}' in text
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(told['warpfuse_control_ms{quantile="0.5"}']) > 0 and float(told["warpfuse_first_picture_seconds"]) > 0
    assert 0 <= float(told["warpfuse_dropped_share"]) < 1

    messages.ask("here", messages.Stop())
    thread.join(30)
    assert ended and ended[0].interrupted and ended[0].frames.dropped >= 0
    with pytest.raises(ConfigError, match="no run named 'here'"):
        messages.ask("here", messages.GetStats())


def test_a_paused_run_shows_nothing_new_until_it_is_resumed(started):
    messages.ask("here", messages.Pause())
    figures = [messages.ask("here", messages.GetStats()).stats["frames"]["out"]]
    while len(figures) < 3 or figures[-1] != figures[-3]:  # what was on its way comes out
        threading.Event().wait(0.3)  # beats of a worker come four times a second
        figures.append(messages.ask("here", messages.GetStats()).stats["frames"]["out"])
    messages.ask("here", messages.Resume())
    while messages.ask("here", messages.GetStats()).stats["frames"]["out"] <= figures[-1]:
        threading.Event().wait(0.05)


def test_two_runs_of_one_name_are_one_too_many(runs):
    with RunDirectory("here"):
        with pytest.raises(ConfigError, match=r"a run named 'here' is under way \(process \d+\).*--name NAME"):
            RunDirectory("here")
        assert free_name("here") == "here-2" and find_run("here") == runs / "here"
    assert free_name("here") == "here" and not (runs / "here").exists()


def test_what_a_killed_run_left_is_removed(runs):
    left = runs_folder() / "here"
    left.mkdir(mode=0o700)
    (left / "control").touch()
    with RunDirectory("here") as folder:
        assert not (folder.path / "control").exists()


@pytest.mark.parametrize(
    "source, name",
    [
        ("/films/my film.mp4", "my-film"),
        ("camera:0,1280x720", "camera0"),
        ("rtsp://user:secret@cam/1?token=abc", "rtsp"),
        ("pattern:512x288@25", "pattern"),
    ],
)
def test_a_run_is_named_after_its_source_without_what_that_hides(source, name):
    assert name_after(source) == name


def test_garbage_is_answered_and_harms_nobody(runs, short_folder):
    with zmq.Context() as context:
        desk = messages.ControlSocket(context, short_folder)
        with context.socket(zmq.REQ) as socket:
            socket.connect(f"ipc://{short_folder}/control")
            for data in (b"", b"\xff" * 100, json.dumps({"type": "Set"}).encode()):
                socket.send(data)
                desk.socket.poll(5000)
                assert list(desk.requests()) == []
                assert b"Denied" in socket.recv()
        desk.close()
