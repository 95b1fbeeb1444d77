"""Threads, links and stages together: order, joins, feedback, ends and failures. No networks, no clock."""

import itertools
import threading
from collections import Counter

import pytest
import torch
import zmq
from support.machines import Counting, Keeping, Passing

from warpfuse.engine.cuda_streams import new_stream
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.transports import open_local
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime import stage_runner
from warpfuse.graph.runtime.failures import Faults
from warpfuse.graph.runtime.lane import Lane
from warpfuse.graph.runtime.runner import Given, Runner
from warpfuse.graph.runtime.sink_runner import SinkRunner
from warpfuse.graph.runtime.source_runner import SourceRunner
from warpfuse.graph.runtime.stage_runner import StageRunner
from warpfuse.stages.frame import Frame, Latent


class Rig:
    """A graph from a list of (sender, receiver, port, delay); parts by name.

    lanes  names of those that share a lane, in their order; all others have a lane each
    """

    def __init__(self, parts, links, book=None, device="cpu", lanes=()):
        self.streams = {name: new_stream(device) for name in parts}
        lane_of = {name: (name,) for name in parts} | {name: lane for lane in lanes for name in lane}
        self.streams |= {name: self.streams[lane[0]] for name, lane in lane_of.items()}
        self.context, self.faults, self.stop = zmq.Context(), Faults(), threading.Event()
        self.book = book or SettingsBook(validate({}))
        ticks = itertools.count()
        self.runners = {name: self._runner(name, part, lambda: next(ticks)) for name, part in parts.items()}
        feeds, outlets = {name: [] for name in parts}, {name: [] for name in parts}
        for sender, receiver, port, delay in links:
            plan = LinkPlan(f"{sender}->{receiver}.{port}", sender, receiver, port, delay=delay)
            if lane_of[sender] == lane_of[receiver]:
                feeds[receiver].append(Given(plan, self.runners[sender]))
                continue
            outlet, inlet = open_local(self.context, plan, 1)
            outlets[sender].append(outlet)
            feeds[receiver].append(inlet)
        for name, runner in self.runners.items():
            runner.connect(feeds[name], outlets[name], gives=len(lane_of[name]) > 1)
        self.lanes = [
            Lane([self.runners[name] for name in lane], self.faults, self.streams[lane[0]])
            for lane in dict.fromkeys(lane_of.values())
        ]

    def _runner(self, name, part, clock):
        if isinstance(part, Counting):
            return SourceRunner(name, part, clock, stopped=self.stop.is_set, book=self.book)
        if isinstance(part, Keeping):
            return SinkRunner(name, part, clock, book=self.book)
        rest = {"book": self.book, "settings_of": lambda config, _: config, "stream": self.streams[name]}
        return StageRunner(name, part, clock, **rest)

    def run(self):
        for lane in self.lanes:
            lane.start()
        for lane in self.lanes:
            lane.join(30)
        assert not any(lane.is_alive() for lane in self.lanes), "a thread did not end"
        for lane in self.lanes:
            lane.disconnect()
        for runner in self.runners.values():
            runner.close()
        self.context.term()
        return self


LINE = [("source", "a", "frame", 0), ("a", "b", "frame", 0), ("b", "sink", "frame", 0)]
DIAMOND = [
    ("source", "a", "frame", 0),
    ("a", "b", "frame", 0),
    ("a", "c", "frame", 0),
    ("b", "join", "left", 0),
    ("c", "join", "right", 0),
    ("join", "sink", "frame", 0),
]
LOOP = [("source", "a", "frame", 0), ("b", "a", "past", 1), ("a", "b", "frame", 0), ("b", "sink", "frame", 0)]


@pytest.mark.parametrize("frames", [0, 1, 2, 100])
def test_every_frame_comes_out_once_and_in_order(frames):
    sink = Keeping()
    rig = Rig({"source": Counting(frames), "a": Passing(), "b": Passing(), "sink": sink}, LINE).run()
    assert sink.seen == list(range(frames))
    assert (sink.complete, rig.faults.error) == (True, None)


def test_a_join_takes_the_same_frame_from_every_input():
    join, sink = Passing(inputs=("left", "right")), Keeping()
    Rig(
        {"source": Counting(50), "a": Passing(), "b": Passing(), "c": Passing(), "join": join, "sink": sink}, DIAMOND
    ).run()
    assert join.seen == [(seq, seq) for seq in range(50)]


@pytest.mark.parametrize("slow", ["b", "c"])
def test_a_join_that_has_all_it_needs_does_not_end_before_its_inputs_do(slow):
    """One branch ends long before the other; the sender of both must not take the end for a failure."""

    class Slow(Passing):
        def __call__(self, **inputs):
            for _ in range(20_000):
                pass
            return super().__call__(**inputs)

    stages = {name: Slow() if name == slow else Passing() for name in ("a", "b", "c")}
    for frames in (1, 2, 3, 5):
        join, sink = Passing(inputs=("left", "right")), Keeping()
        links = [*DIAMOND, ("b", "sink_2", "frame", 0)]
        other = Keeping()
        rig = Rig({"source": Counting(frames), **stages, "join": join, "sink": sink, "sink_2": other}, links).run()
        assert (sink.complete, other.complete) == (True, True)
        assert [lane.failed for lane in rig.lanes] == [None] * 7


def test_inputs_that_end_out_of_step_are_a_fault_not_an_end():
    sources = {"one": Counting(5), "two": Counting(6)}
    links = [("one", "join", "left", 0), ("two", "join", "right", 0), ("join", "sink", "frame", 0)]
    sink = Keeping()
    rig = Rig({**sources, "join": Passing(inputs=("left", "right")), "sink": sink}, links).run()
    assert rig.faults.stage == "join" and "one->join.left ended" in str(rig.faults.error)
    assert sink.complete is False


@pytest.mark.parametrize("lanes", [(), [("a", "b")]], ids=["links", "a lane"])
def test_a_loop_sees_the_frame_before_and_first_nothing(lanes):
    loop, sink = Passing(inputs=("frame", "past")), Keeping()
    Rig({"source": Counting(50), "a": loop, "b": Passing(), "sink": sink}, LOOP, lanes=lanes).run()
    assert loop.seen == [(0, None)] + [(seq, seq - 1) for seq in range(1, 50)]
    assert sink.seen == list(range(50))


def partitions(names):
    """Every way to share names out to lanes."""
    if not names:
        yield []
        return
    first, *rest = names
    for lanes in partitions(rest):
        yield [(first,), *lanes]
        for i, lane in enumerate(lanes):
            yield [*lanes[:i], (first, *lane), *lanes[i + 1 :]]


RING = [
    ("source", "a", "frame", 0),
    ("d", "a", "past", 1),
    ("a", "b", "frame", 0),
    ("b", "c", "frame", 0),
    ("source", "c", "side", 0),
    ("c", "d", "frame", 0),
    ("b", "d", "skip", 0),
    ("d", "sink", "frame", 0),
]


@pytest.mark.parametrize("lanes", [*partitions("abcd")], ids=lambda lanes: " ".join(map("".join, lanes)))
def test_however_a_loop_is_shared_out_to_lanes_the_same_frames_meet(lanes):
    """Those whose stages wait for one of another lane in between as well: none waits for good."""
    joins = {"a": Passing(("frame", "past")), "c": Passing(("frame", "side")), "d": Passing(("frame", "skip"))}
    sink = Keeping()
    rig = Rig({"source": Counting(30), **joins, "b": Passing(), "sink": sink}, RING, lanes=lanes).run()
    assert joins["a"].seen == [(0, None)] + [(seq, seq - 1) for seq in range(1, 30)]
    assert joins["c"].seen == joins["d"].seen == [(seq, seq) for seq in range(30)]
    assert (sink.seen, sink.complete, rig.faults.error) == (list(range(30)), True, None)


def test_a_lane_has_one_thread_and_every_stage_of_it_its_own_figures():
    threads = {}

    class Telling(Passing):
        def __call__(self, **inputs):
            threads.setdefault(self, set()).add(threading.get_ident())
            return super().__call__(**inputs)

        __hash__ = object.__hash__

    stages = {"a": Telling(("frame", "past")), "b": Telling()}
    rig = Rig({"source": Counting(20), **stages, "sink": Keeping()}, LOOP, lanes=[("a", "b")]).run()
    assert threads[stages["a"]] == threads[stages["b"]] and len(threads[stages["a"]]) == 1
    for name in stages:
        runner = rig.runners[name]
        assert (runner.frames, runner.passed, runner.meter.count, runner.ended) == (20, 19, 20, True)
    links = Counter(link for runner in rig.runners.values() for link in runner.links)
    assert links == Counter({"source->a.frame": 1, "b->sink.frame": 1}), "none inside the lane"
    assert rig.runners["b"].hops == {}


def test_only_the_stage_that_is_called_is_busy():
    inside, go_on = threading.Event(), threading.Event()

    class Holding(Passing):
        def __call__(self, **inputs):
            inside.set()
            assert go_on.wait(30)
            return super().__call__(**inputs)

    parts = {"source": Counting(1), "a": Passing(("frame", "past")), "b": Holding(), "sink": Keeping()}
    rig = Rig(parts, LOOP, lanes=[("a", "b")])
    rig.runners["b"]._clock = lambda: 7
    (lane,) = (lane for lane in rig.lanes if lane.name == "a")
    thread = threading.Thread(target=rig.run)
    thread.start()
    assert inside.wait(30)
    told = (rig.runners["a"].busy_since, rig.runners["b"].busy_since, lane.working)
    go_on.set()
    thread.join(30)
    assert told == (0, 7, "b")
    assert rig.runners["b"].busy_since == 0


@pytest.mark.parametrize("frames", [(5, 6), (6, 5)])
def test_links_into_a_lane_that_end_out_of_step_are_a_fault(frames):
    links = [("one", "a", "frame", 0), ("a", "b", "frame", 0), ("two", "b", "side", 0), ("b", "sink", "frame", 0)]
    sources, sink = {"one": Counting(frames[0]), "two": Counting(frames[1])}, Keeping()
    stages = {"a": Passing(), "b": Passing(inputs=("frame", "side"))}
    rig = Rig({**sources, **stages, "sink": sink}, links, lanes=[("a", "b")]).run()
    assert rig.faults.stage == "b" and "ended a frame or more before" in str(rig.faults.error)
    assert sink.complete is False and sink.seen == list(range(len(sink.seen))) and len(sink.seen) <= 5


def test_every_hop_is_timed_once_a_frame_and_a_primed_delay_is_none():
    rig = Rig({"source": Counting(20), "a": Passing(), "b": Passing(), "sink": Keeping()}, LOOP).run()
    counts = {link: meter.count for runner in rig.runners.values() for link, meter in runner.hops.items()}
    assert counts == {"source->a.frame": 20, "b->a.past": 19, "a->b.frame": 20, "b->sink.frame": 20}


def test_a_hop_lasts_from_the_hand_over_to_the_taking():
    context = zmq.Context()
    outlet, inlet = open_local(context, LinkPlan("a->b.x", "a", "b", "x"), 1)
    reader = Runner("b", lambda: 8_000_000)
    reader.connect([inlet], [])
    outlet.receive()
    for handed_over in (1_000_000, 0):  # 0: who sends has no clock
        outlet.offer(outlet.sent, "value", handed_over)
        inlet.receive()
        assert reader._take(inlet) == "value"
        inlet.done()
    assert (reader.hops["a->b.x"].count, reader.hops["a->b.x"].max_ms) == (1, 7.0)
    outlet.close()
    reader.disconnect()
    context.term()


def test_no_link_ever_holds_more_than_its_slots():
    rig = Rig({"source": Counting(200), "a": Passing(), "b": Passing(), "sink": Keeping()}, LINE).run()
    for runner in rig.runners.values():
        for outlet in runner.outlets:
            assert (outlet.sent, outlet.dropped) == (200, 0)
            assert 1 <= outlet.peak <= outlet.plan.slots


@pytest.mark.parametrize("lanes", [(), [("a", "b")]], ids=["links", "a lane"])
@pytest.mark.parametrize("links", [LINE, LOOP], ids=["line", "loop"])
@pytest.mark.parametrize("failing", ["a", "b"])
def test_the_first_error_names_its_stage_ends_every_thread_and_discards_the_output(failing, links, lanes):
    stages = {"a": Passing(), "b": Passing()}
    stages[failing].fails_at = 7
    sink, source = Keeping(), Counting(10_000)
    rig = Rig({"source": source, **stages, "sink": sink}, links, lanes=lanes).run()
    assert (rig.faults.stage, str(rig.faults.error)) == (failing, "out of paint")
    assert sink.complete is False
    assert sink.seen == list(range(len(sink.seen))) and len(sink.seen) <= 7
    assert source.seq < 10_000 and source.closed and all(stage.closed for stage in stages.values())


def test_a_sink_that_fails_stops_the_source_and_the_other_sink_discards():
    failing, other, source = Keeping(fails_at=5), Keeping(), Counting(10_000)
    links = [*LINE[:2], ("b", "bad", "frame", 0), ("b", "good", "frame", 0)]
    rig = Rig({"source": source, "a": Passing(), "b": Passing(), "bad": failing, "good": other}, links).run()
    assert rig.faults.stage == "bad" and source.seq < 10_000
    assert (failing.complete, other.complete) == (False, False)


def test_a_stopped_source_ends_the_run_with_complete_outputs():
    sink, source = Keeping(), Counting(10_000)
    rig = Rig({"source": source, "a": Passing(), "b": Passing(), "sink": sink}, LINE)
    read, rig_stop = source.read, rig.stop

    def read_and_stop():
        if source.seq == 20:
            rig_stop.set()
        return read()

    source.read = read_and_stop
    rig.run()
    assert (sink.complete, sink.seen) == (True, list(range(21)))


@pytest.mark.parametrize("lanes", [(), [("a", "b")]], ids=["links", "a lane"])
def test_new_settings_reach_every_stage_before_the_same_frame(lanes):
    stages = {"a": Passing(), "b": Passing()}
    book, source, second = SettingsBook(validate({})), Counting(40), validate({"prompt": "second"})
    rig = Rig({"source": source, **stages, "sink": Keeping()}, LINE, book, lanes=lanes)
    read = source.read

    def read_and_change():
        frame = read()
        if frame is not None and frame.stamp.seq == 13:
            book.publish(second)
        return frame

    source.read = read_and_change
    rig.run()
    assert stages["a"].settings == stages["b"].settings == [(13, second)]


class Writing(Passing):
    """Writes the number of a frame, late, into memory that held -1."""

    def __call__(self, frame):
        x = torch.full((1 << 20,), -1.0, device="cuda:0")
        torch.cuda._sleep(20_000_000)
        return Latent(frame.stamp, x.fill_(float(frame.stamp.seq)))


class Reading(Passing):
    """Counts the frames in which not all is their number."""

    def __init__(self):
        super().__init__()
        self.torn = torch.zeros((), dtype=torch.int64, device="cuda:0")

    def __call__(self, frame):
        self.torn += (frame.z != float(frame.stamp.seq)).any()
        return Frame(frame.stamp)


@pytest.mark.gpu
@pytest.mark.parametrize("guarded", [True, False])
def test_on_a_card_a_stage_reads_what_the_one_before_it_wrote(cuda, guarded, monkeypatch):
    if not guarded:
        monkeypatch.setattr(stage_runner, "reads", lambda *_: None)
    reading = Reading()
    torch.cuda.synchronize()
    parts = {"source": Counting(12), "a": Writing(), "b": reading, "sink": Keeping()}
    rig = Rig(parts, LINE, device=cuda).run()
    assert rig.faults.error is None
    torch.cuda.synchronize()
    assert (int(reading.torn) == 0) if guarded else (int(reading.torn) > 0)  # False guards the test itself
