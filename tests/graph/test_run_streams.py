"""Several streams in one run: the same bytes as alone, shared calls, and nobody waits for anybody."""

import contextlib
import hashlib
import json
import threading

import pytest
from support.waiting import until

from warpfuse.engine.backends.onnxruntime import OnnxRuntimeEngine
from warpfuse.engine.errors import BadInput
from warpfuse.graph.control.messages import AddStream, Applied, GetStats, RemoveStream, RunFigures, Set, ask
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import Observers, open_run, run
from warpfuse.graph.runtime import endpoints
from warpfuse.graph.runtime.shared_engine import SharedEngine
from warpfuse.stages.diffusion.decode import Decode
from warpfuse.stages.errors import SinkLost
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.null import NullSink
from warpfuse.stages.sources.pattern import PatternSource

WAIT_S = 60
PATTERN = "pattern:96x64@25,frames={}"
KINDS = {
    "negative": {"source": PATTERN.format(12), "prompt": "negative"},
    "noisy": {"source": PATTERN.format(20), "prompt": "noisy", "seed": 7},
    "batch": {"source": PATTERN.format(15), "steps": 3, "stages": {"predict": {"stream": True}}},
    "between": {"source": PATTERN.format(9), "steps": 2, "stages": {"fuse": {"between": "picture"}}, "fusion": 0.5},
}  # fmt: skip


@pytest.fixture
def go(exact_bundle):
    def run_them(streams, top=None, **options):
        return run(read_streams({"bundle": exact_bundle, **(top or {}), "streams": streams}), **options)

    return run_them


@pytest.fixture
def streams_run(exact_bundle):
    """streams_run(streams) -> (a context manager around the run under way, the run)."""
    undo = contextlib.ExitStack()

    def opened(streams, *, stop=True):
        ending = threading.Event()
        running = open_run(read_streams({"bundle": exact_bundle, "streams": streams}), undo, stop=ending)

        @contextlib.contextmanager
        def under_way():
            running.start()
            waiting = threading.Thread(target=running.wait)
            waiting.start()
            try:
                yield
            finally:
                if stop:
                    ending.set()
                waiting.join(WAIT_S)
                assert not waiting.is_alive()

        return under_way(), running

    with undo:
        yield opened


def null(frames, **keys):
    return {"source": PATTERN.format(frames), "sinks": ["null:"], **keys}


def bytes_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shown(monkeypatch):
    """Numbers of the frames that came out, by how many frames the source of the stream has."""
    seen, opened, write = {}, [], NullSink.write

    def open_sink(url, info, size, **options):
        sink = opened_by(url, info, size, **options)
        opened.append((sink, info.frames))
        return sink

    def writing(self, frame):
        frames = next(n for sink, n in opened if sink is self)
        seen.setdefault(frames, []).append(frame.stamp.seq)
        return write(self, frame)

    opened_by = endpoints.open_sink
    monkeypatch.setattr(endpoints, "open_sink", open_sink)
    monkeypatch.setattr(NullSink, "write", writing)
    return seen


def test_every_stream_has_the_bytes_it_has_alone(go, exact_bundle, tmp_path):
    told = {name: {**keys, "sinks": [str(tmp_path / f"{name}.mp4")]} for name, keys in KINDS.items()}
    stats = go(told)
    assert {n: s.frames.out for n, s in stats.streams.items()} == {
        "negative": 12,
        "noisy": 20,
        "batch": 15,
        "between": 9,
    }
    assert stats.frames.out == stats.frames.into == 56
    assert not stats.interrupted and not any(own.interrupted for own in stats.streams.values())
    for name, keys in KINDS.items():
        run(validate({**keys, "sinks": [str(tmp_path / "alone.mp4")], "bundle": exact_bundle}))
        assert bytes_of(tmp_path / f"{name}.mp4") == bytes_of(tmp_path / "alone.mp4"), name
    run(validate({**KINDS["noisy"], "seed": 8, "sinks": [str(tmp_path / "alone.mp4")], "bundle": exact_bundle}))
    assert bytes_of(tmp_path / "noisy.mp4") != bytes_of(tmp_path / "alone.mp4"), "control: another seed"


def test_streams_of_different_sizes_share_networks(go, exact_bundle, tmp_path):
    own = {
        "wide": {"source": PATTERN.format(9), "prompt": "negative"},
        "tall": {"source": "pattern:64x96@25,frames=7", "prompt": "noisy"},
        "told": {"source": PATTERN.format(8), "prompt": "noisy", "size": "48x32"},
    }
    stats = go({name: {**keys, "sinks": [str(tmp_path / f"{name}.mp4")]} for name, keys in own.items()})
    assert {n: s.size for n, s in stats.streams.items()} == {"wide": (96, 64), "tall": (64, 96), "told": (48, 32)}
    assert stats.to_dict()["streams"]["tall"]["size"] == [64, 96] and stats.networks["unet"]["rows"] == 9 + 7 + 8
    for name, keys in own.items():
        run(validate({**keys, "sinks": [str(tmp_path / "alone.mp4")], "bundle": exact_bundle}))
        assert bytes_of(tmp_path / f"{name}.mp4") == bytes_of(tmp_path / "alone.mp4"), name


class Rush:
    """Holds the first call of the UNet until so many other stages wait for it."""

    def __init__(self, monkeypatch, others):
        self.calls, self.held, call = [], threading.Event(), OnnxRuntimeEngine.__call__
        shared = []
        monkeypatch.setattr(SharedEngine, "__init__", self._noting(SharedEngine.__init__, shared))

        def calling(engine, inputs):
            if engine.name == "unet.onnx":
                self.calls.append(len(inputs["x"]))
                if not self.held.is_set():
                    self.held.set()
                    network = next(s for s in shared if s.engine is engine)
                    while network.waiting < others:
                        assert not self.gave_up.wait(0.001)
            return call(engine, inputs)

        self.gave_up = threading.Event()
        timer = threading.Timer(WAIT_S, self.gave_up.set)
        timer.daemon = True
        timer.start()
        monkeypatch.setattr(OnnxRuntimeEngine, "__call__", calling)

    @staticmethod
    def _noting(init, shared):
        def noting(self, *args):
            init(self, *args)
            shared.append(self)

        return noting


@pytest.mark.parametrize("batch, most", [(None, 4), (2, 2), (1, 1)])
def test_frames_that_are_ready_share_a_call(go, shown, monkeypatch, batch, most):
    rush = Rush(monkeypatch, others=3)
    stats = go({f"s{n}": null(n) for n in (5, 6, 7, 8)}, {"batch": batch} if batch else None)
    frames = 5 + 6 + 7 + 8
    assert sum(rush.calls) == frames == stats.networks["unet"]["rows"] and max(rush.calls) <= most
    assert stats.networks["unet"]["calls"] == len(rush.calls)
    # the rows that waited during the first call came in one behind it, or in as few as the batch allows
    assert len(rush.calls) <= frames - (3 - -(-3 // min(most, 3))), rush.calls
    assert shown == {n: list(range(n)) for n in (5, 6, 7, 8)}, "each stream in its order, none into another"


def test_a_source_that_stands_still_holds_nobody_back(go, shown, monkeypatch):
    """The stalled one gives no frame before the other has ended."""
    read, others_end = PatternSource.read, threading.Event()

    def reading(self):
        if self.info.frames == 6:
            assert others_end.wait(WAIT_S), "the other stream did not get through"
        return read(self)

    said = []
    monkeypatch.setattr(PatternSource, "read", reading)
    write = NullSink.write

    def writing(self, frame):
        write(self, frame)
        if len(shown.get(30, ())) == 30:
            others_end.set()

    monkeypatch.setattr(NullSink, "write", writing)
    stats = go({"still": null(6), "quick": null(30)}, say=said.append)
    assert [stats.streams[name].frames.out for name in ("still", "quick")] == [6, 30]


def test_a_camera_and_a_file_go_side_by_side(go, shown):
    """The live one takes what comes when it comes, the file waits for its turn and loses nothing."""
    stats = go({"live": {**null(20), "source": "pattern:96x64@25,live=1,frames=20"}, "file": null(30)})
    live, file = (stats.streams[name] for name in ("live", "file"))
    assert live.frames.into == live.frames.out + live.frames.dropped == 20
    assert live.drops["late"] == live.frames.dropped and (file.frames.out, file.frames.dropped) == (30, 0)
    assert shown[30] == list(range(30)) and shown[20] == sorted(shown[20])


def whitened(frames):
    """`read` of sources: the pictures of the one with so many frames are white."""
    read = PatternSource.read

    def reading(self):
        raw = read(self)
        if raw is None or self.info.frames != frames:
            return raw
        return RawFrame(raw.stamp, raw.rgb * 0 + 255)

    return reading


def test_a_stream_that_fails_ends_alone_and_is_told_at_the_end(go, tmp_path, monkeypatch):
    decode, said = Decode.__call__, []

    def broken(self, latent, **rest):
        if latent.stamp.seq and float(latent.z.mean()) > 0.999:
            raise RuntimeError("out of paint")
        return decode(self, latent, **rest)

    bright = {"source": PATTERN.format(40), "prompt": "same", "sinks": [str(tmp_path / "bad.mp4")]}
    monkeypatch.setattr(Decode, "__call__", broken)
    monkeypatch.setattr(PatternSource, "read", whitened(40))
    with pytest.raises(StageFailed, match=r"stage bad\.decode: RuntimeError: out of paint") as failed:
        go(
            {"bad": bright, "good": {"source": PATTERN.format(25), "sinks": [str(tmp_path / "good.mp4")]}},
            say=said.append,
        )
    stats = failed.value.stats
    assert (stats.streams["good"].frames.out, stats.streams["bad"].frames.out) == (25, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["good.mp4"], "what is not whole is not left"
    assert any(line.startswith("bad: has ended, the others go on: stage decode") for line in said)


def test_a_lost_sink_ends_its_stream_with_its_kind_of_error(go, monkeypatch):
    write = NullSink.write
    sinks = []

    def full(self, frame):
        if self not in sinks:
            sinks.append(self)
        if self is sinks[0] and frame.stamp.seq == 3:
            raise SinkLost("null:: the disk is full")
        return write(self, frame)

    monkeypatch.setattr(NullSink, "write", full)
    with pytest.raises(SinkLost, match=r"^stream s[12]: null:: the disk is full") as lost:
        go({"s1": null(20), "s2": null(20)})
    assert sorted(s.frames.out for s in lost.value.stats.streams.values()) == [3, 20]


def test_a_stopped_run_ends_every_stream_in_order(go, tmp_path):
    stop = threading.Event()

    def progress(frames, total):
        assert total == 2_000_000
        if frames >= 10:
            stop.set()

    named = {n: {"source": PATTERN.format(1_000_000), "sinks": [str(tmp_path / f"{n}.mp4")]} for n in ("a", "b")}
    stats = go(named, stop=stop, progress=progress)
    assert stats.interrupted and stats.frames.into == stats.frames.out
    assert all(own.interrupted for own in stats.streams.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_the_figures_tell_all_and_each(go):
    figures = json.loads(json.dumps(go({"a": null(5), "b": null(7, steps=2)}).to_dict()))
    assert figures["frames"]["out"] == 12 and figures["steps"] == 2
    assert {name: own["frames"]["out"] for name, own in figures["streams"].items()} == {"a": 5, "b": 7}
    assert figures["streams"]["a"].keys() == {
        "frames", "fps", "seconds", "latency_ms", "age_ms", "drops", "restarts", "size", "steps", "control_ms",
        "first_picture_s", "dropped_share",
    }  # fmt: skip
    assert figures["stages"]["a.predict"]["count"] == 5 and figures["stages"]["b.predict"]["count"] == 7
    assert figures["links"]["b.encode->predict.source"]["sent"] == 7
    assert figures["networks"]["unet"]["rows"] == 5 + 2 * 7 and figures["networks"]["decoder"]["rows"] == 12


def test_each_stream_can_be_asked_and_changed_by_its_name(go, short_folder, monkeypatch):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    stop, replies = threading.Event(), []

    def progress(frames, total):
        if frames >= 5 and not stop.is_set():
            replies.append(ask("b", Set({"prompt": "same"}), timeout_s=WAIT_S))
            replies.append(ask("b", GetStats(), timeout_s=WAIT_S))
            stop.set()

    go({"a": null(1_000_000), "b": null(1_000_000)}, observers=Observers(control=True), stop=stop, progress=progress)
    applied, figures = replies
    assert isinstance(applied, Applied) and applied.version == 1
    assert isinstance(figures, RunFigures) and "predict" in figures.stats["stages"]


@pytest.mark.parametrize(
    "streams, says",
    [
        ({"a": null(5, sinks=["x.mp4"]), "b": null(5, sinks=["null:", "./x.mp4"])}, "x.mp4 is a sink of a and of b"),
        ({"a": null(5), "b": null(5, prompt="nosuch")}, "^stream b: .*nosuch"),
        ({"a": null(5), "b": {**null(5), "source": "missing.mp4"}}, "^stream b: missing.mp4"),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_written(go, tmp_path, monkeypatch, streams, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=says):
        go(streams)
    assert list(tmp_path.iterdir()) == []


def test_a_sink_must_not_be_what_another_stream_reads(go, tmp_path):
    film = tmp_path / "film.mp4"
    go({"a": {"source": PATTERN.format(5), "sinks": [str(film)]}})
    with pytest.raises(BadInput, match="source is this very file"):
        go({"a": {"source": str(film), "sinks": ["null:"]}, "b": {"source": PATTERN.format(5), "sinks": [str(film)]}})
    with pytest.raises(ConfigError):
        go({"a": {"source": str(film), "sinks": []}})


def test_a_stream_joins_and_leaves_while_the_others_go_on(go, short_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    stop, done = threading.Event(), []
    joined, left = str(tmp_path / "c.mp4"), []

    def asking():
        assert ask(
            "streams", AddStream("", {"source": PATTERN.format(7), "sinks": [joined], "prompt": "negative"})
        ).name == ("pattern")
        ask("streams", AddStream("d", null(1_000_000)), timeout_s=WAIT_S)
        while ask("d", GetStats()).stats["frames"]["out"] < 3:
            pass
        ask("streams", RemoveStream("d"), timeout_s=WAIT_S)
        left.append(sorted(path.name for path in (short_folder / "warpfuse").iterdir()))
        with pytest.raises(ConfigError, match="there is no stream 'd'"):
            ask("streams", RemoveStream("d"))
        with pytest.raises(ConfigError, match="a stream of that name"):
            ask("streams", AddStream("a", null(5)))
        with pytest.raises(ConfigError, match=r"missing\.mp4"):
            ask("streams", AddStream("e", {**null(5), "source": "missing.mp4"}))
        with pytest.raises(ConfigError, match="has one stream"):
            ask("a", RemoveStream("a"))
        done.append(True)

    def progress(frames, total):
        if frames >= 3 and not asker.ident:
            asker.start()
        if done or (asker.ident and not asker.is_alive()):
            stop.set()

    asker = threading.Thread(target=asking, daemon=True)
    said = []
    stats = go(
        {"a": null(1_000_000), "b": null(1_000_000)},
        observers=Observers(control=True),
        stop=stop,
        progress=progress,
        say=said.append,
    )
    assert done and "d" not in left[0] and {"a", "b"} <= set(left[0])
    assert stats.streams["pattern"].frames.out == 7 and stats.streams["d"].frames.out >= 3
    assert "stream d has joined" in said and "stream d has left" in said
    assert stats.frames.out == sum(own.frames.out for own in stats.streams.values())


def test_a_stream_that_joins_has_the_bytes_it_has_alone(streams_run, exact_bundle, tmp_path):
    run_them, running = streams_run({"a": null(1_000_000)})
    with run_them:
        keys = {**KINDS["noisy"], "source": "pattern:64x48@25,frames=20", "sinks": [str(tmp_path / "late.mp4")]}
        running.add("late", keys)
        until(lambda: "late" not in running.streams, "the end of the stream")
    run(validate({**keys, "sinks": [str(tmp_path / "alone.mp4")], "bundle": exact_bundle}))
    assert bytes_of(tmp_path / "late.mp4") == bytes_of(tmp_path / "alone.mp4")


def test_a_run_whose_last_stream_left_takes_the_next_one_over_open_networks(streams_run):
    """A network closes with its last client: whoever comes next must not get the closed one."""
    run_them, running = streams_run({"a": null(1_000_000)})
    with run_them:
        running.remove("a")
        assert not running.streams
        running.add("b", null(9))
        until(lambda: "b" not in running.streams, "the end of the stream")
    assert running.stats().streams["b"].frames.out == 9
    assert running.stats().networks["decoder"]["rows"] == running.stats().frames.out


def test_a_run_whose_last_stream_came_to_its_end_is_over(streams_run):
    run_them, running = streams_run({"a": null(5)}, stop=False)
    with run_them:
        pass
    with pytest.raises(BadInput, match="has ended"):
        running.add("b", null(5))


def test_a_change_of_all_streams_is_of_all_or_of_none(streams_run):
    run_them, running = streams_run({"a": null(1_000_000), "b": null(1_000_000, steps=2)})
    with run_them:
        assert running.change({"strength": 0.5}).version == 1
        assert {own.settings()["strength"] for own in running.streams.values()} == {0.5}
        with pytest.raises(BadInput, match="seed cannot change"):
            running.change({"seed": 3})
        assert {own.settings()["seed"] for own in running.streams.values()} == {0}
