"""The controller of a cluster over hosts that take its orders as real ones do, in a time of their own."""

import json
import threading

import pytest
from support.cluster_hosts import LEASE_S, FakeHost, hosts_of
from support.waiting import until

from warpfuse.cluster.controller import (
    Apply,
    Controller,
    Down,
    Drain,
    GetStatus,
    Move,
    ask_controller,
    serve,
    with_file,
)
from warpfuse.cluster.reconcile import Add
from warpfuse.cluster.warden import HostOrders, HostTold
from warpfuse.engine.file_lock import is_held
from warpfuse.graph.errors import ConfigError

CAMERA = {"source": "pattern:512x512@15", "sinks": ["null:"], "rate": 15, "size": "512x512"}


def file_of(*names, **top):
    pools = {"cards": {"gpu": "L4", "megapixel_ms": 40.0, "frame_ms": 0}}
    cluster = {"name": "yard", "lease_s": LEASE_S, "reserve": 0}
    return {"cluster": cluster, "pools": pools, "streams": dict.fromkeys(names, CAMERA), **top}


class FakeEngine:
    """Hosts of `support.cluster_hosts`, asked as the wardens ask real ones."""

    def __init__(self, count=2):
        self.now_s, self.stopped, self.orders = 0.0, False, 0
        self.own = {host.name: FakeHost(host, n * 1_000_000) for n, host in enumerate(hosts_of(count), 1)}

    def hosts(self):
        return [own.host for own in self.own.values()]

    def troubles(self):
        return ["n9 runs warpfuse 0.0, the head 1.0"]

    def stop(self):
        self.stopped = True

    def exchange(self, orders):
        return {name: self._told(self.own[name], one) for name, one in orders.items() if self.own[name].state == "up"}

    def _told(self, own, orders: HostOrders):
        self.orders += len(orders.begin) + len(orders.end)
        for ended in orders.end:
            own.remove(ended.name, ended.generation, self.now_s)
        refused = {}
        for begun in orders.begin:
            stream = self.config.streams[begun.name]
            why = own.add(Add(own.host.name, stream, begun.grant), self.now_s, self.broken)
            if why is not None:
                refused[begun.name] = why
        return HostTold(own.beat(orders.grants, self.now_s), refused)

    broken = frozenset()


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def begun(engine, tmp_path):
    """A controller of this engine, and one more for each call."""
    path = tmp_path / "state" / "yard.json"

    def begin(*names):
        if names:
            with_file(path, file_of(*names))
        controller = Controller(lambda config: engine, path, engine.now_s)
        engine.config = controller.config
        return controller

    begin.path = path
    return begin


def run(controller, engine, seconds=10):
    for _ in range(seconds):
        engine.now_s += 1
        engine.config = controller.config
        for own in engine.own.values():
            own.step(engine.now_s)
        controller.step(engine.now_s)


def states(controller):
    return {stream.name: (stream.host, stream.why or stream.state) for stream in controller.answer(GetStatus()).streams}


def test_streams_of_a_file_run_and_another_file_takes_their_place(begun, engine):
    controller = begun("a", "b")
    run(controller, engine)
    assert {host for host, _ in states(controller).values()} == {"n0:0", "n1:0"}
    assert {state for _, state in states(controller).values()} == {"runs"}
    controller.answer(Apply(file_of("b", "c")))
    run(controller, engine)
    assert states(controller).keys() == {"b", "c"} and {s for _, s in states(controller).values()} == {"runs"}
    assert sorted(name for own in engine.own.values() for name in own.streams) == ["b", "c"]


def test_a_controller_that_begins_anew_gives_no_order_and_keeps_the_books(begun, engine):
    before = begun("a", "b", "c")
    run(before, engine)
    engine.own["n0:0"].state = "dead"
    engine.own["n0:0"].streams.clear()
    run(before, engine, 20)
    orders, placed = engine.orders, states(before)
    books = {stream.name: stream for stream in before.answer(GetStatus()).streams}
    assert any(own.lives == 2 and own.reckoned for own in books.values())
    again = begun()
    run(again, engine, 3)
    assert engine.orders == orders and states(again) == placed
    for stream in again.answer(GetStatus()).streams:
        assert (stream.lives, stream.reckoned) == (books[stream.name].lives, books[stream.name].reckoned)
        assert stream.into >= books[stream.name].into


def test_a_drained_node_has_no_stream_and_a_moved_stream_is_where_it_was_told(begun, engine):
    controller = begun("a", "b")
    run(controller, engine)
    controller.answer(Drain("n0"))
    run(controller, engine)
    assert {host for host, _ in states(controller).values()} == {"n1:0"}
    assert "n0" in json.loads(begun.path.read_text())["draining"]
    controller.answer(Drain("n0", on=False))
    run(controller, engine)
    controller.answer(Move("a", "n0:0"))
    run(controller, engine)
    assert states(controller)["a"] == ("n0:0", "runs")


@pytest.mark.parametrize(
    "request_, says",
    [
        (Drain("n7"), "there is no node 'n7'; known: n0, n1"),
        (Move("x", "n0:0"), "stream 'x' runs nowhere; running: a"),
        (Move("a", "n7:0"), "there is no host 'n7:0'; known: n0:0, n1:0"),
        (Apply(file_of("a", bundle="other")), "bundle: the hosts of this cluster were opened with another value"),
        (Apply({"streams": {"a": {"source": "rtsp://me:hunter2@c/", "sinks": ["null:"]}}}), "holds a user or password"),
    ],
)
def test_what_cannot_be_done_is_one_line(begun, engine, request_, says):
    controller = begun("a")
    run(controller, engine)
    before = begun.path.read_text()
    with pytest.raises(ConfigError, match=says) as refused:
        controller.answer(request_)
    assert "hunter2" not in str(refused.value) and begun.path.read_text() == before


def test_a_host_that_does_not_answer_and_a_stream_without_room_are_told(begun, engine):
    controller = begun(*(f"s{n}" for n in range(12)))
    run(controller, engine)
    waiting = [state for host, state in states(controller).values() if not host]
    assert waiting and all("needs 0.16 of a card" in why for why in waiting)
    engine.own["n0:0"].state = "frozen"
    run(controller, engine, 3)
    told = controller.answer(GetStatus())
    assert {host.name: host.state for host in told.hosts} == {"n0:0": "it does not answer", "n1:0": "runs"}
    assert told.troubles == ["n9 runs warpfuse 0.0, the head 1.0"]


def test_a_stream_that_a_host_refuses_says_why_and_is_tried_again(begun, engine):
    controller = begun("a", "b")
    engine.broken = {"a"}
    run(controller, engine)
    assert states(controller)["a"] == ("", "the source is not there") and states(controller)["b"][1] == "runs"
    engine.broken = frozenset()
    run(controller, engine, 40)
    assert states(controller)["a"][1] == "runs"


def test_it_is_asked_over_its_socket_and_there_is_one(begun, engine, short_folder, monkeypatch):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    with pytest.raises(ConfigError, match=r"no run named 'yard'.*`warpfuse cluster up` starts a cluster"):
        ask_controller("yard", GetStatus())
    controller, stop = begun("a"), threading.Event()
    serving = threading.Thread(target=serve, args=(controller, "yard", stop))
    serving.start()
    try:
        until(lambda: is_held(short_folder / "warpfuse" / "yard" / "lock"), "the controller")
        until(lambda: ask_controller("yard", GetStatus()).streams[0].state == "runs", "the stream")
        with pytest.raises(ConfigError, match="there is no node 'n7'"):
            ask_controller("yard", Drain("n7"))
        with pytest.raises(ConfigError, match="a run named 'yard' is under way"):
            serve(controller, "yard", stop)
        ask_controller("yard", Down())
        serving.join(30)
        assert not serving.is_alive() and engine.stopped
    finally:
        stop.set()
        serving.join()
