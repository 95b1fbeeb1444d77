"""Whole runs, from a source to files."""

import hashlib
import itertools
import json
import threading
from fractions import Fraction

import av
import pytest

from warpfuse.engine.errors import BundleError
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run
from warpfuse.graph.runtime import endpoints
from warpfuse.stages.diffusion.decode import Decode
from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.sinks.null import NullSink
from warpfuse.stages.sources.pattern import PatternSource

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


@pytest.mark.parametrize("workers", ["one", "stages"])
def test_a_stop_before_the_first_frame_is_an_interrupt_and_no_empty_file(
    go, tmp_path, monkeypatch, short_folder, workers
):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    stop = threading.Event()
    stop.set()
    stats = go(stop=stop, workers=workers)
    assert stats.interrupted and stats.frames.out == 0 and not list(tmp_path.iterdir())


def test_a_source_without_a_frame_is_told(go, monkeypatch):
    """The control: nobody stopped it."""
    monkeypatch.setattr(PatternSource, "read", lambda self: None)
    with pytest.raises(SinkError, match="no frame arrived"):
        go()


def test_the_figures_have_the_agreed_form(go):
    figures = json.loads(json.dumps(go(steps=2).to_dict()))
    assert figures.keys() == {
        "frames", "fps", "seconds", "latency_ms", "stages", "links", "restarts", "backend", "device", "bundle", "size",
        "steps", "age_ms", "drops", "precision", "control_ms", "first_picture_s", "dropped_share",
    }  # fmt: skip
    assert figures["drops"] == {"late": 0, "paused": 0, "failed": 0, "restart": 0}
    nothing = {"dropped": 0, "repeated": 0, "under_way": 0, "held": 0}
    assert figures["frames"] == {"in": 20, "out": 20, "predicted": 20, **nothing}
    assert figures["latency_ms"].keys() == {"p50", "p95", "p99", "max"}
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"] <= figures["latency_ms"]["max"] * 1.001
    assert figures["stages"]["predict"].keys() == {"ms_p50", "ms_p95", "count"}
    assert all(link.keys() == {"sent", "peak", "slots", "ms_p50", "ms_p99"} for link in figures["links"].values())
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


def breaks(monkeypatch, at):
    """Decode raises at the frames for which `at` is true. Returns the numbers it raised at."""
    decode, raised = Decode.__call__, []

    def broken(self, latent, **rest):
        if at(latent.stamp.seq):
            raised.append(latent.stamp.seq)
            raise RuntimeError("out of paint")
        return decode(self, latent, **rest)

    monkeypatch.setattr(Decode, "__call__", broken)
    return raised


def test_a_stage_that_fails_five_times_in_a_row_ends_the_run_by_name_and_leaves_no_file(go, tmp_path, monkeypatch):
    raised = breaks(monkeypatch, lambda seq: seq >= 5)
    with pytest.raises(StageFailed, match="stage decode: RuntimeError: out of paint"):
        go()
    assert raised == [5, 6, 7, 8, 9]
    assert list(tmp_path.glob("*")) == [], "nothing under the final name, and no temporary file"


@pytest.mark.parametrize("fusion", [0, 0.8])
def test_a_frame_that_a_stage_fails_at_is_dropped_alone_and_the_others_keep_their_times(
    go, tmp_path, monkeypatch, fusion
):
    said = []
    raised = breaks(monkeypatch, lambda seq: seq in (3, 4, 9))
    stats = go(say=said.append, fusion=fusion)
    assert (stats.frames.into, stats.frames.out, stats.frames.dropped) == (20, 17, 3)
    assert stats.drops == {"late": 0, "paused": 0, "failed": 3, "restart": 0} and raised == [3, 4, 9]
    left = [seq for seq in range(20) if seq not in (3, 4, 9)]
    assert [round(float(time) * 25) for time in decoded(tmp_path / "out.mp4")] == left
    assert sum("was dropped: stage decode: RuntimeError: out of paint" in line for line in said) == 3


def test_a_failure_now_and_then_never_ends_a_run(go, monkeypatch):
    raised = breaks(monkeypatch, lambda seq: seq % 2)
    assert go().frames.out == 10 and len(raised) == 10


def test_behind_a_failure_the_first_frame_is_a_discontinuity(go, monkeypatch):
    seen = {}
    write = NullSink.write
    monkeypatch.setattr(NullSink, "write", lambda self, f: (seen.update({f.stamp.seq: f.stamp}), write(self, f))[1])
    breaks(monkeypatch, lambda seq: seq == 7)
    go(sinks=["null:"])
    broken = [seq for seq, stamp in seen.items() if stamp.discontinuity]
    assert len(broken) == 1 and broken[0] <= 8
    assert list(seen) == [seq for seq in range(20) if seq != 7]


def test_a_live_source_never_waits_and_what_it_drops_is_counted(go, monkeypatch):
    """The sink lets a frame pass only when the source has read ten more."""
    read, turn = PatternSource.read, threading.Semaphore(0)

    def reading(self):
        turn.release()
        return read(self)

    def writing(self, frame):
        for _ in range(10):
            turn.acquire(timeout=2)
        self.frames += 1

    monkeypatch.setattr(PatternSource, "read", reading)
    monkeypatch.setattr(NullSink, "write", writing)
    monkeypatch.setattr(endpoints, "RealTime", lambda source, clock: source)  # the test lets it read
    stats = go(source="pattern:96x64@25,frames=200", sinks=["null:"], realtime=True, workers="one")
    assert stats.frames.into == 200 and stats.frames.out < 60
    assert stats.frames.dropped == stats.frames.into - stats.frames.out
    assert stats.drops == {"late": stats.frames.dropped, "paused": 0, "failed": 0, "restart": 0}


@pytest.mark.parametrize("fps, frames", [(50, 40), (25, 20), (10, 8), ("30000/1001", 24)])
def test_sinks_get_the_rate_that_was_asked_for(go, tmp_path, fps, frames):
    stats = go(fps=fps)
    times = decoded(tmp_path / "out.mp4")
    assert len(times) == stats.frames.out == frames
    gaps = {round(float(after - before), 4) for before, after in itertools.pairwise(times)}
    assert len(gaps) <= 2 and abs(next(iter(gaps)) - float(1 / Fraction(fps))) < 2e-3
    assert stats.frames.into + stats.frames.repeated == stats.frames.out + stats.frames.dropped


def test_a_sink_that_is_lost_ends_the_run_and_keeps_what_was_there_before(go, tmp_path, monkeypatch):
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
    from support import still

    bundle = still.write(tmp_path / "still", 64, 64)
    stats = go(flow=bundle, prompt="same", stages={"flow": {"trust": {"photometric": 0.2}}})
    assert stats.frames.out == 20 and stats.stages["flow"].count == 20
    with pytest.raises(BundleError, match="flow"):
        go(flow=exact_bundle)
