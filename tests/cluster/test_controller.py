"""The controller of a cluster over hosts that take its orders as real ones do, in a time of their own."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from support.cluster_hosts import LEASE_S, FakeHost, hosts_of
from support.waiting import until

from warpfuse.cluster.controller import (
    Apply,
    Controller,
    Down,
    Drain,
    GetStatus,
    GetWarmed,
    Move,
    Warm,
    ask_controller,
    serve,
    with_file,
)
from warpfuse.cluster.reconcile import Add
from warpfuse.cluster.warden import HostOrders, HostTold, Warmed
from warpfuse.engine.file_lock import is_held
from warpfuse.graph.control.messages import HostBeat
from warpfuse.graph.errors import ConfigError

CAMERA = {"source": "pattern:512x512@15", "sinks": ["null:"], "rate": 15, "size": "512x512"}


def file_of(*names, **top):
    pools = {"cards": {"gpu": "L4", "megapixel_ms": 40.0, "frame_ms": 0}}
    cluster = {"name": "yard", "lease_s": LEASE_S, "reserve": 0}
    return {"cluster": cluster, "pools": pools, "streams": dict.fromkeys(names, CAMERA), **top}


class FakeEngine:
    """Hosts of `support.cluster_hosts`, asked as the wardens ask real ones.

    bad   bundles that cannot be had
    down  hosts that are not ready now, as they are being opened anew
    """

    opens_s = warms_s = 3

    def __init__(self, count=2, cards=1):
        self.now_s, self.stopped, self.orders = 0.0, False, 0
        self.own = {host.name: FakeHost(host, n * 1_000_000) for n, host in enumerate(hosts_of(count, cards), 1)}
        self.opened, self.ready_s, self.warm, self.bad = {}, {}, {}, set()

    def hosts(self):
        return [own.host for own in self.own.values()]

    def troubles(self):
        return ["n9 runs warpfuse 0.0, the head 1.0"]

    def stop(self):
        self.stopped = True

    def exchange(self, orders):
        return {name: self._told(self.own[name], one) for name, one in orders.items() if self.own[name].state == "up"}

    @property
    def down(self):
        return {name for name in self.own if self.ready_s.get(name, 0) > self.now_s}

    def _told(self, own, orders: HostOrders):
        name, version = own.host.name, orders.opening.version
        if self.opened.setdefault(name, orders.opening) != orders.opening:
            self.opened[name], self.ready_s[name] = orders.opening, self.now_s + self.opens_s
            self.own[name] = FakeHost(own.host, own.first + 1000)
            return HostTold(trouble="it was opened with other keys, and ends", version=version)
        if name in self.down:
            return HostTold(HostBeat(int(self.now_s * 10), {}, ready=False), trouble="it is starting", version=version)
        return structs.replace(self._obeyed(own, orders), version=version, warmed=self._warmed(name, orders.warm))

    def _warmed(self, name, order):
        begun_s = self.warm.setdefault((name, order.attempt), self.now_s) if order is not None else self.now_s
        if self.now_s < begun_s + self.warms_s or order is None:
            return None
        return Warmed(order.attempt, "a wrong sum" if order.keys.get("bundle") in self.bad else "")

    def _obeyed(self, own, orders):
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
    return beginning(engine, tmp_path)


def beginning(engine, folder):
    """Begins a controller of this engine, and one more for each call."""
    path = folder / "state" / "yard.json"

    def begin(*names, **top):
        if names:
            with_file(path, file_of(*names, **top))
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
        (Apply(file_of("a", secrets={"dir": "/s"})), "secrets.dir: this cluster was begun with another value"),
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


def hosts_with(engine, bundle):
    return {name for name, opening in engine.opened.items() if opening.keys.get("bundle") == bundle}


def rolled_out(engine, controllers, bundle, seconds=400):
    """Let another bundle be rolled out by the last of the controllers. Yields at every second which streams run."""
    for _ in range(seconds):
        run(controllers[-1], engine, 1)
        yield {name for own in engine.own.values() for name, one in own.streams.items() if one.ended_s is None}
        if hosts_with(engine, bundle) == set(engine.own) and not engine.down:
            return


@settings(max_examples=15)
@given(
    nodes=st.integers(2, 4),
    cards=st.integers(1, 2),
    loads=st.integers(1, 3),
    fill=st.floats(0.1, 1),
    restarts=st.sets(st.integers(1, 100), max_size=2),
)
def test_another_bundle_is_rolled_out_without_a_stream_that_has_no_home(
    tmp_path_factory, nodes, cards, loads, fill, restarts
):
    """All that the reserve, of one node, has to hold is the load of one host, and streams of the same load fit.

    A controller that begins anew forgets where a stream under way was to go, so that one may move once more.
    """
    engine = FakeEngine(nodes, cards)
    begin = beginning(engine, tmp_path_factory.mktemp("state"))
    names = [f"s{n}" for n in range(max(1, int(fill * (nodes - 1) * cards * loads)))]
    pools = {"cards": {"gpu": "L4", "megapixel_ms": 0.001, "frame_ms": 790 / 15 / loads}}
    keys = {"pools": pools, "cluster": {"name": "yard", "lease_s": LEASE_S, "reserve": 1, "move_every_s": 1e9}}
    controller = begin(*names, **keys, bundle="old")
    run(controller, engine, 12)
    assert {state for _, state in states(controller).values()} == {"runs"}
    assert hosts_with(engine, "old") == set(engine.own)
    controller.answer(Apply(file_of(*names, **keys, bundle="new")))
    away, controllers = dict.fromkeys(names, 0), [controller]
    for second, running in enumerate(rolled_out(engine, controllers, "new")):
        if second in restarts:
            controllers.append(begin())
        away = {name: 0 if name in running else away[name] + 1 for name in names}
        assert max(away.values()) <= (6 if restarts else 2), "a move takes two exchanges; one forgotten is tried anew"
        assert len(engine.down) <= 1, "one host at a time"
    assert hosts_with(engine, "new") == set(engine.own)
    run(controllers[-1], engine, 12)
    lives = [stream.lives for stream in controllers[-1].answer(GetStatus()).streams]
    assert max(lives) <= 1 + nodes * cards + len(restarts) and {
        state for _, state in states(controllers[-1]).values()
    } == {"runs"}


def test_streams_that_find_no_room_elsewhere_wait_while_their_host_is_opened_anew(begun, engine):
    names = [f"s{n}" for n in range(10)]
    controller = begun(*names, bundle="old")
    run(controller, engine, 12)
    assert {state for _, state in states(controller).values()} == {"runs"}, "control: both hosts are full"
    controller.answer(Apply(file_of(*names, bundle="new")))
    least = min(len(running) for running in rolled_out(engine, [controller], "new"))
    assert hosts_with(engine, "new") == {"n0:0", "n1:0"} and least == 5
    run(controller, engine, 12)
    assert {state for _, state in states(controller).values()} == {"runs"}


def test_a_bundle_that_cannot_be_had_is_told_before_a_stream_is_moved_and_mended_by_the_next_file(begun, engine):
    controller = begun("a", "b", bundle="old")
    run(controller, engine)
    before, orders = states(controller), engine.orders
    engine.bad = {"torn"}
    controller.answer(Apply(file_of("a", "b", bundle="torn")))
    run(controller, engine, 20)
    told = controller.answer(GetStatus())
    assert told.troubles[1:] == ["hosts are not opened anew, since it failed on n0:0: a wrong sum"]
    assert states(controller) == before and engine.orders == orders and hosts_with(engine, "old") == {"n0:0", "n1:0"}
    assert {host.state for host in told.hosts} == {"runs, to be opened anew"}
    controller.answer(Apply(file_of("a", "b", bundle="new")))
    run(controller, engine, 40)
    assert hosts_with(engine, "new") == {"n0:0", "n1:0"} and controller.answer(GetStatus()).troubles[1:] == []


def test_a_host_that_does_not_come_back_keeps_the_others_as_they_are(begun, engine):
    controller = begun("a", "b", bundle="old")
    run(controller, engine)
    engine.opens_s = 1000
    controller.answer(Apply(file_of("a", "b", bundle="new")))
    run(controller, engine, 60)
    assert len(hosts_with(engine, "new")) == 1 and len(engine.down) == 1
    assert {state for _, state in states(controller).values()} == {"runs"}


def test_a_frozen_host_gets_no_stream_of_one_that_is_drained(begun, engine):
    engine.own |= {host.name: FakeHost(host, 9_000_000) for host in hosts_of(3)[2:]}
    controller = begun("a", "b", "c", "d")
    run(controller, engine)
    engine.own["n2:0"].state = "frozen"
    run(controller, engine, 3)
    controller.answer(Drain("n0"))
    run(controller, engine, 3)
    assert not engine.own["n0:0"].streams and {"n2:0"} >= {host for host, _ in states(controller).values()} - {"n1:0"}


def test_every_host_is_warmed_and_what_fails_is_told(begun, engine):
    controller = begun("a", bundle="old")
    run(controller, engine)
    engine.bad = {"torn"}
    for bundle, says in (("new", ""), ("torn", "a wrong sum")):
        controller.answer(Warm(file_of("a", bundle=bundle)))
        assert controller.answer(GetWarmed()).hosts == {"n0:0": None, "n1:0": None}
        run(controller, engine)
        assert controller.answer(GetWarmed()).hosts == {"n0:0": says, "n1:0": says}
    assert hosts_with(engine, "old") == {"n0:0", "n1:0"}
    with pytest.raises(ConfigError, match="nothing is being warmed"):
        controller.answer(GetWarmed())
