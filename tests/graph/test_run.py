"""Whole runs, from a source to files."""

import hashlib
import json
import threading

import av
import pytest

from warpfuse.engine.errors import BundleError
from warpfuse.graph.config import validate
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.run import run
from warpfuse.stages.decode import Decode
from warpfuse.stages.errors import SinkLost

PATTERN = "pattern:96x64@25,frames=20"


@pytest.fixture
def go(exact_bundle, tmp_path):
    def run_it(**keys):
        options = {name: keys.pop(name) for name in ("say", "stop", "progress") if name in keys}
        defaults = {"source": PATTERN, "sinks": [str(tmp_path / "out.mp4")], "bundle": exact_bundle}
        return run(validate({**defaults, **keys}), **options)

    return run_it


def decoded(path):
    """Presentation times of the frames, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.parametrize("fusion", [0, 0.8])
def test_frames_in_are_frames_out_in_order_and_on_time(go, tmp_path, fusion):
    stats = go(fusion=fusion, prompt="same")
    frames = decoded(tmp_path / "out.mp4")
    assert stats.frames.into == stats.frames.out == len(frames) == 20
    assert [round(float(time) * 25) for time in frames] == list(range(20))


def test_two_runs_with_one_seed_give_identical_bytes(go, tmp_path):
    digests = set()
    for _ in range(2):
        go(prompt="noisy", seed=3)
        digests.add(hashlib.sha256((tmp_path / "out.mp4").read_bytes()).hexdigest())
    assert len(digests) == 1
    go(prompt="noisy", seed=4)
    assert hashlib.sha256((tmp_path / "out.mp4").read_bytes()).hexdigest() not in digests, "control: the seed matters"


def test_every_sink_gets_every_frame(go, tmp_path):
    stats = go(sinks=[str(tmp_path / "a.mp4"), "null:", str(tmp_path / "b.mkv")])
    assert [stats.stages[f"sink_{n}"].count for n in (1, 2, 3)] == [20, 20, 20]
    assert len(decoded(tmp_path / "a.mp4")) == len(decoded(tmp_path / "b.mkv")) == 20


def test_frames_limits_the_run(go, tmp_path):
    assert go(frames=7).frames.out == 7
    assert len(decoded(tmp_path / "out.mp4")) == 7


def test_the_figures_have_the_agreed_form(go):
    figures = json.loads(json.dumps(go(steps=2).to_dict()))
    assert figures.keys() == {
        "frames", "fps", "seconds", "latency_ms", "stages", "links", "restarts", "backend", "device", "bundle", "size",
        "steps",
    }  # fmt: skip
    assert figures["frames"] == {"in": 20, "out": 20, "dropped": 0, "repeated": 0, "predicted": 20, "held": 0}
    assert figures["latency_ms"].keys() == {"p50", "p95", "p99", "max"}
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"] <= figures["latency_ms"]["max"] * 1.001
    assert figures["stages"]["predict"].keys() == {"ms_p50", "ms_p95", "count"}
    assert all(link.keys() == {"sent", "peak", "slots"} for link in figures["links"].values())
    assert (figures["backend"], figures["device"], figures["bundle"]) == ("onnxruntime", "cpu", "exact")
    assert (figures["size"], figures["steps"], figures["restarts"]) == ([96, 64], 2, 0)


def test_what_was_chosen_is_said(go):
    lines = []
    go(size="100x64", say=lines.append)
    assert any("100x64 rounded to 104x64" in line for line in lines)
    assert any("onnxruntime" in line for line in lines)


def test_a_stopped_run_leaves_a_whole_file(go, tmp_path):
    stop = threading.Event()

    def progress(frames, total):
        assert total == 1_000_000
        if frames >= 5:
            stop.set()

    stats = go(source="pattern:96x64@25,frames=1000000", stop=stop, progress=progress)
    assert stats.interrupted and stats.frames.into == stats.frames.out
    assert len(decoded(tmp_path / "out.mp4")) == stats.frames.out


def test_a_stage_that_raises_ends_the_run_by_name_and_leaves_no_file(go, tmp_path, monkeypatch):
    decode, calls = Decode.__call__, []

    def broken(self, frame):
        calls.append(frame)
        if len(calls) == 5:
            raise RuntimeError("out of paint")
        return decode(self, frame)

    monkeypatch.setattr(Decode, "__call__", broken)
    with pytest.raises(StageFailed, match="stage decode: RuntimeError: out of paint"):
        go()
    assert list(tmp_path.glob("*")) == [], "nothing under the final name, and no temporary file"


def test_a_sink_that_is_lost_ends_the_run_and_keeps_what_was_there_before(go, tmp_path, monkeypatch):
    from warpfuse.stages.sinks.null import NullSink

    def full(self, frame):
        raise SinkLost("null:: the disk is full")

    old = tmp_path / "out.mp4"
    old.write_bytes(b"the film of yesterday")
    monkeypatch.setattr(NullSink, "write", full)
    with pytest.raises(SinkLost, match="disk is full"):
        go(sinks=[str(old), "null:"])
    assert old.read_bytes() == b"the film of yesterday"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("keys, says", [({"source": ""}, "no source"), ({"sinks": []}, "no sink")])
def test_source_and_sink_are_needed(go, keys, says):
    with pytest.raises(ConfigError, match=says):
        go(**keys)


def test_the_flow_may_come_from_a_bundle(go, tmp_path, exact_bundle):
    import still

    bundle = still.write(tmp_path / "still", 64, 64)
    stats = go(flow=bundle, prompt="same", stages={"flow": {"trust": {"photometric": 0.2}}})
    assert stats.frames.out == 20 and stats.stages["flow"].count == 20
    with pytest.raises(BundleError, match="flow"):
        go(flow=exact_bundle)
