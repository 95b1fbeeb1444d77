"""A stream host: one set of networks that stays open, streams that come and go, and what is counted of them."""

import contextlib
import gc
import hashlib
import os
import threading

import psutil
import pytest
from support.waiting import until

from warpfuse.engine.backends.onnxruntime import OnnxRuntimeEngine
from warpfuse.engine.errors import BadInput
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run, run
from warpfuse.stages.errors import SinkLost
from warpfuse.stages.sinks.null import NullSink

WAIT_S = 60
CAMERA = "pattern:96x64@25,live=1,frames=1000000"


def stream(frames, size="96x64", **keys):
    return {"source": f"pattern:{size}@25,frames={frames}", "sinks": ["null:"], **keys}


@pytest.fixture
def host(exact_bundle):
    """A stream host under way, without a stream."""
    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        running = open_run(read_streams({"bundle": exact_bundle, "host": True}), undo, stop=stop)
        running.start()
        told = []
        waiting = threading.Thread(target=lambda: told.append(running.wait()))
        waiting.start()
        yield running
        stop.set()
        waiting.join(WAIT_S)
        assert not waiting.is_alive() and told[0].interrupted


def over(host, name):
    until(lambda: name in host.counts() and host.counts()[name].over, f"the end of stream {name}")
    until(lambda: name not in host.streams, f"{name} to be gone")
    return host.counts()[name]


def test_its_networks_are_opened_once_whatever_streams_come_and_go(host, exact_bundle, monkeypatch):
    opened, init = [], OnnxRuntimeEngine.__init__

    def opening(self, *args, **options):
        opened.append(args)
        init(self, *args, **options)

    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", opening)
    for name, size in (("a", "96x64"), ("b", "64x96"), ("c", "96x64")):
        host.add(name, stream(5, size))
        assert over(host, name).out == 5
    assert not opened and host.stats().networks["unet"]["rows"] == 15
    run(validate({**stream(5), "bundle": exact_bundle}))
    assert opened, "control: a run of its own opens its networks"


def test_every_network_of_the_bundle_that_ships_is_open_before_a_stream_joins(monkeypatch):
    opened, init = [], OnnxRuntimeEngine.__init__

    def opening(self, *args, **options):
        opened.append(args)
        init(self, *args, **options)

    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        monkeypatch.setattr(OnnxRuntimeEngine, "__init__", opening)
        running = open_run(read_streams({"host": True}), undo, stop=stop)
        before = len(opened)
        running.start()
        running.add("a", stream(3))
        stop.set()
        running.wait()
    assert before == len(opened) >= 3


def test_a_stream_is_not_over_before_its_thread_has_begun(host, monkeypatch):
    """Who looked in between took it for ended, and closed it."""
    begin, over_already = threading.Thread.start, []

    def beginning(thread):
        if thread.name == "wf:stream a":
            over_already.append(host.counts()["a"].over)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", beginning)
    host.add("a", stream(5))
    assert over(host, "a").out == 5 and over_already == [False]


def test_one_without_a_stream_tells_so(host):
    figures = host.stats().to_dict()
    assert figures["frames"]["in"] == figures["frames"]["out"] == 0 and host.counts() == {}
    with pytest.raises(BadInput, match="there is no stream 'a'; under way: none"):
        host.remove("a")


def test_a_stream_that_ends_badly_is_told_and_the_host_goes_on(host, monkeypatch):
    write = NullSink.write

    def full(self, frame):
        if frame.stamp.seq == 3 and frame.rgb.shape[0] == 96:
            raise SinkLost("null:: no room")
        return write(self, frame)

    monkeypatch.setattr(NullSink, "write", full)
    host.add("bad", stream(9, "64x96"))
    told = over(host, "bad")
    assert told.out == 3 and "no room" in told.error and told.size == (64, 96)
    with pytest.raises(BadInput, match=r"missing\.mp4"):
        host.add("none", {**stream(5), "source": "missing.mp4"})
    host.add("good", stream(7))
    good = over(host, "good")
    assert (good.into, good.out, good.dropped, good.error) == (7, 7, 0, None)


def test_the_books_of_a_stream_balance_at_every_moment_and_after_it(host):
    host.add("cam", {"source": CAMERA, "sinks": ["null:"], "fps": 30})

    def balanced(own):
        return own.into + own.repeated == own.out + own.dropped + own.under_way

    seen = []
    until(lambda: seen.append(host.counts()["cam"]) or seen[-1].out > 20, "twenty pictures")
    host.remove("cam")
    seen.append(host.counts()["cam"])
    assert all(map(balanced, seen)) and seen[-1].over and seen[-1].under_way == 0
    whole = host.stats().frames
    assert (whole.into, whole.out, whole.dropped) == (seen[-1].into, seen[-1].out, seen[-1].dropped)


def test_counting_reads_no_histogram(host, monkeypatch):
    from hdrh.histogram import HdrHistogram

    host.add("cam", {"source": CAMERA, "sinks": ["null:"]})
    until(lambda: host.counts()["cam"].out > 0, "a picture")
    monkeypatch.setattr(HdrHistogram, "encode", lambda self: pytest.fail("a histogram was made into text"))
    monkeypatch.setattr(HdrHistogram, "get_value_at_percentile", lambda self, p: pytest.fail("a percentile was asked"))
    assert host.counts()["cam"].size == (96, 64)
    with pytest.raises(pytest.fail.Exception):
        host.stats()  # the control


def test_a_stream_has_the_bytes_it_has_alone_after_others_came_and_went(host, exact_bundle, tmp_path):
    host.add("before", stream(5, prompt="negative"))
    over(host, "before")
    host.add("beside", {"source": CAMERA, "sinks": ["null:"]})
    keys = stream(12, "64x48", prompt="noisy", seed=7)
    host.add("own", {**keys, "sinks": [str(tmp_path / "own.mp4")]})
    over(host, "own")
    run(validate({**keys, "sinks": [str(tmp_path / "alone.mp4")], "bundle": exact_bundle}))
    digest = [hashlib.sha256((tmp_path / f"{n}.mp4").read_bytes()).hexdigest() for n in ("own", "alone")]
    assert digest[0] == digest[1]


def test_streams_that_came_and_went_leave_nothing_behind(host):
    process = psutil.Process()

    def held():
        gc.collect()
        return process.num_threads(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    for n in range(40):
        host.add(f"s{n}", stream(1))
        over(host, f"s{n}")
        if n == 10:
            before = held()
    assert held() == before
    figures = host.stats()
    assert figures.frames.out == 40 and figures.streams == figures.stages == {}
