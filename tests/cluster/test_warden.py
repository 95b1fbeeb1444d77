"""The hosts of a node: real processes that outlive their warden, are frozen and killed, and come again."""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from msgspec import structs
from support.waiting import until

from warpfuse.cluster.bundle_store import BundleStore
from warpfuse.cluster.warden import (
    LEAVING,
    HostOrders,
    HostSpec,
    NodeSpec,
    Opening,
    Warden,
    Warmed,
    Warming,
    stop_hosts,
)
from warpfuse.engine.file_lock import is_held
from warpfuse.graph.control.messages import EndLife, Grant, StartLife
from warpfuse.graph.control.run_directory import runs_folder

PATIENCE_S = 90
LEASE_S = 8.0  # longer than a machine that is busy needs from one question to the next
CAMERA = {"source": "pattern:96x64@25,live=1,frames=1000000", "sinks": ["null:"]}


@pytest.fixture
def node(short_folder, monkeypatch, exact_bundle, tmp_path):
    """A node with a secret, and what its hosts are opened with. Whatever host is left is killed."""
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    yield NodeSpec("n1", 0, HostSpec("", {"bundle": str(exact_bundle)}, str(tmp_path), 600.0))
    for folder in runs_folder().iterdir():
        if is_held(folder / "lock"):
            with suppress(psutil.NoSuchProcess):  # a stream's folder is of the same process
                process(folder.name).kill()


def process(name):
    return psutil.Process(int((runs_folder() / name / "pid").read_text()))


def ready(warden):
    def beat():
        beat = warden.exchange({})["0"].beat
        return beat if beat is not None and beat.ready else None

    return until(beat, "a host that is ready", PATIENCE_S)


def say(warden, **orders):
    return warden.exchange({"0": HostOrders(**orders)})["0"]


def order(name, beat, *, unique, for_s=LEASE_S):
    return StartLife(name, CAMERA, "digest", unique, Grant(1, beat.beat, for_s))


def test_a_host_that_was_frozen_has_ended_its_unique_stream_and_one_that_is_killed_has_none(node):
    warden = Warden(node)
    beat = ready(warden)
    told = say(warden, begin=(order("door", beat, unique=True), order("yard", beat, unique=False)))
    assert told.refused == {} and told.beat.streams.keys() == {"door", "yard"}

    def pictures():
        confirmed = {name: Grant(1, pictures.beat.beat, LEASE_S) for name in ("door", "yard")}
        pictures.beat = say(warden, grants=confirmed).beat
        return all(seen.counts.out > 2 for seen in pictures.beat.streams.values())

    pictures.beat = told.beat
    until(pictures, "pictures of both", PATIENCE_S)
    host = process("n1-0")
    host.suspend()
    assert say(warden).beat is None, "it does not answer"
    host.resume()
    seen = until(lambda: (beat := say(warden).beat) and beat.streams["door"].counts.over and beat.streams, "its end")
    assert seen["door"].counts.error == "its lease is over" and not seen["yard"].counts.over
    again = Warden(node)
    assert say(again).beat.streams.keys() == {"door", "yard"} and process("n1-0").pid == host.pid
    say(again, end=(EndLife("door", 1),))
    assert say(again).beat.streams.keys() == {"yard"}
    host.kill()
    gone = until(lambda: (beat := say(again).beat) and not beat.ready and beat, "what is told of a killed host")
    assert gone.streams == {}
    late = ready(again)
    assert late.streams == {} and process("n1-0").pid != host.pid
    (runs_folder() / "n1").mkdir()
    (runs_folder() / "n1" / LEAVING).touch()
    stop_hosts("n1")
    assert not (runs_folder() / "n1-0").exists()
    assert not say(again).beat.ready and not (runs_folder() / "n1-0").exists(), "a node that leaves starts no host"


def test_a_host_that_cannot_be_opened_says_why(node, tmp_path):
    spec = HostSpec("", {"bundle": str(tmp_path / "missing")}, str(tmp_path), 600.0)
    warden = Warden(NodeSpec("n2", 0, spec))
    told = until(lambda: (told := say(warden)) and "said last" in told.trouble and told, "why it has ended", PATIENCE_S)
    assert "missing" in told.trouble and "n2-0.log" in told.trouble and not told.beat.ready


def test_a_node_fetches_what_a_host_is_opened_with_ahead_and_opens_it_anew(node, exact_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("WARPFUSE_CACHE", str(tmp_path / "cache"))
    shared = BundleStore(tmp_path / "shared")
    pinned = shared.keep(Path(exact_bundle))
    torn = f"exact@sha256:{'0' * 64}"
    (shared.folder / ("0" * 64)).mkdir()
    (shared.folder / ("0" * 64) / "bundle.json").write_text("{}")
    warden = Warden(structs.replace(node, hosts=structs.replace(node.hosts, store=str(shared.folder))))
    ready(warden)
    first = process("n1-0").pid

    def warmed(attempt, bundle):
        order = Warming(attempt, {"bundle": bundle}, ((96, 64),))
        return until(lambda: say(warden, warm=order).warmed, "an end of it", PATIENCE_S)

    wrong = warmed("a", torn)
    sums = f"bundle.json has the sha256 {sha256(b'{}').hexdigest()[:12]}..., expected 000000000000..."
    assert wrong.attempt == "a" and sums in wrong.error
    assert warmed("b", pinned) == Warmed("b", "")
    assert BundleStore(tmp_path / "cache" / "bundles").find(pinned.partition(":")[2]), "it is here now"
    assert process("n1-0").pid == first, "the host has gone on beside it"

    def anew():
        told = say(warden, opening=Opening("2", {"bundle": pinned}))
        return told.beat is not None and told.beat.ready and told

    assert until(anew, "a host with these keys", PATIENCE_S).version == "2" and process("n1-0").pid != first
    stop_hosts("n1")
