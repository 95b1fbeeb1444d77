"""A host of a cluster: it runs streams by leave of its controller, in lives, and tells what became of each."""

import contextlib
import threading

import pytest
from support.waiting import until

from warpfuse.cluster.leased_host import LeasedHost
from warpfuse.cluster.secret_files import SecretFiles
from warpfuse.graph.control.messages import Grant, StartLife
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run

LEASE_S = 6.0
CAMERA = {"source": "pattern:96x64@25,live=1,frames=1000000", "sinks": ["null:"]}
FILM = {"source": "pattern:96x64@25,frames=5", "sinks": ["null:"]}


class Controller:
    """A host under way, and the time by which its leases run."""

    def __init__(self, run, secrets, stop):
        self.now_s, self.stop = 100.0, stop
        self.host = LeasedHost(run, secrets, stop, clock=lambda: self.now_s)
        self.granted = {}

    def beat(self, *confirmed):
        beat = self.host.beat({name: self.grant(name, self.granted[name]) for name in confirmed})
        self.newest = beat.beat
        return beat.streams

    def grant(self, name, generation):
        self.granted[name] = generation
        return Grant(generation, self.newest, LEASE_S)

    def begin(self, name, keys, generation=1, unique=False):
        self.host.begin(StartLife(name, keys, "digest", unique, self.grant(name, generation)))

    def over(self, name):
        until(lambda: self.beat()[name].counts.over, f"the end of {name}")
        return self.beat()[name].counts

    def showing(self, name):
        until(lambda: self.beat(name)[name].counts.out > 2, f"pictures of {name}")


@pytest.fixture
def controller(exact_bundle, tmp_path):
    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        running = open_run(read_streams({"bundle": exact_bundle, "host": True}), undo, stop=stop)
        running.start()
        waiting = threading.Thread(target=running.wait)
        waiting.start()
        controller = Controller(running, SecretFiles(tmp_path), stop)
        controller.beat()
        yield controller
        stop.set()
        waiting.join(60)
        assert not waiting.is_alive()


def test_a_unique_stream_ends_with_its_lease_and_another_goes_on(controller):
    controller.begin("door", CAMERA, unique=True)
    controller.begin("yard", CAMERA)
    controller.showing("door")
    controller.showing("yard")
    controller.now_s += LEASE_S - 0.1
    controller.host.tick()
    assert not controller.beat()["door"].counts.over, "control: its lease is not over"
    controller.now_s += 0.2
    controller.host.tick()
    counts = controller.over("door")
    assert counts.error == "its lease is over" and counts.under_way == 0
    assert counts.into + counts.repeated == counts.out + counts.dropped
    assert not controller.beat()["yard"].counts.over


def test_a_lease_that_is_confirmed_goes_on(controller):
    controller.begin("door", CAMERA, unique=True)
    for _ in range(3):
        controller.now_s += LEASE_S - 1
        controller.beat("door")
        controller.host.tick()
        assert controller.beat("door")["door"].counts.error is None


def test_each_life_is_begun_once_and_an_ended_one_never_again(controller):
    controller.begin("film", FILM)
    controller.begin("film", FILM)
    counts = controller.over("film")
    assert (counts.into, counts.out, counts.error) == (5, 5, None)
    controller.begin("film", FILM)
    controller.host.end("film", 1)
    assert controller.beat() == {}
    with pytest.raises(ConfigError, match="stream film: its lease is over"):
        controller.begin("film", FILM)
    controller.begin("film", FILM, generation=2)
    assert controller.over("film").out == 5


def test_an_order_for_another_life_ends_nothing(controller):
    controller.begin("yard", CAMERA, generation=4)
    controller.host.end("yard", 3)
    controller.showing("yard")
    with pytest.raises(ConfigError, match="an earlier life of it has not ended here"):
        controller.begin("yard", CAMERA, generation=5)
    controller.host.end("yard", 4)
    assert controller.over("yard").error == "removed"


def test_a_stream_that_cannot_be_opened_says_why_without_the_secret(controller, tmp_path):
    controller.begin("gate", {**FILM, "source": "${secret:gate}.mp4"})
    assert "secret gate" in controller.over("gate").error
    controller.host.end("gate", 1)
    (tmp_path / "gate").write_text("hunter2")
    (tmp_path / "gate").chmod(0o600)
    controller.begin("gate", {**FILM, "source": "${secret:gate}.mp4"}, generation=2)
    error = controller.over("gate").error
    assert "***.mp4" in error and "hunter2" not in error


def test_a_stream_that_ends_because_its_host_stops_has_not_ended_by_itself(controller):
    controller.begin("yard", CAMERA)
    controller.showing("yard")
    controller.stop.set()
    assert controller.over("yard").error == "its host was stopped"


def test_a_host_that_is_stopped_waits_for_a_stream_that_is_being_opened(controller):
    controller.begin("yard", CAMERA)
    controller.stop.set()
    controller.host.finish()
    assert not [thread.name for thread in threading.enumerate() if thread.name == "wf:life yard"]
