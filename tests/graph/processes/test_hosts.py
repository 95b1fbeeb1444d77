"""A graph on two hosts: the same bytes as on one; and the way between them cut and healed."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys

import av
import pytest
import yaml
from support.tcp_proxy import Proxy
from support.workers import STAGES

from warpfuse.graph.links.curve import make_keys
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run

COMMAND = "from warpfuse.cli import main; main()"
BEHIND = 500  # ports that the far host dials lead there by a proxy that many ports above

DETOUR = f"""
import zmq
connect = zmq.Socket.connect
def detour(self, address):
    way, _, port = address.rpartition(":")
    return connect(self, f"{{way}}:{{int(port) + {BEHIND}}}" if address.startswith("tcp:") else address)
zmq.Socket.connect = detour
"""
SLOWLY = """
import time
from warpfuse.stages.transfer.download import Download
call = Download.__call__
def slowly(self, **inputs):
    time.sleep(0.05)
    return call(self, **inputs)
Download.__call__ = slowly
"""  # the supervisor hears of a frame up to a quarter of a second later; a quick run would be over by then


def graph_of(folder, bundle, near="tcp://127.0.0.1:{}", far="tcp://127.0.0.1:{}"):
    """Flow and sink here, the networks there; a port that is this process's alone."""
    make_keys(folder / "keys")
    base = 20_000 + (os.getpid() * 7) % 20_000
    return base, {
        "source": "pattern:96x64@25,frames=40", "sinks": [str(folder / "out.mp4")], "bundle": str(bundle),
        "prompt": "noisy", "fusion": 0.8, "keys": str(folder / "keys"), "listen": near.format(base),
        "workers": {
            "near": ["source", "upload", "encode", "flow", "sink_1"],
            "far": {"stages": STAGES[3:], "host": far.format(base + 100)},
        },
    }  # fmt: skip


def digest_alone(graph, folder):
    """What one process writes."""
    path = folder / "alone.mp4"
    run(validate({**graph, "workers": "one", "sinks": [str(path)]}), say=lambda line: None)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def process(*command, **options):
    started = subprocess.Popen([*command], **options)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.mark.parametrize("noticed", [True, False], ids=["when it was noticed", "at once"])
def test_a_way_that_was_cut_and_healed_costs_no_frame(go, tmp_path, exact_bundle, monkeypatch, noticed):
    if not noticed:
        monkeypatch.setattr("warpfuse.graph.processes.channel.GRACE_NS", 60_000_000_000)
    base, graph = graph_of(tmp_path, exact_bundle)
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump(graph))
    proxy = Proxy({port + BEHIND: port for port in range(base + 1, base + 20)})

    def cut_and_heal(supervisor):
        if supervisor._shown() < 5:
            return False
        if not proxy.cuts:
            proxy.cut()
        far = next(handle for handle in supervisor._pool.handles if handle.name == "far")
        if noticed and far.state == "running":
            return False
        proxy.heal()
        return True

    far = [sys.executable, "-c", DETOUR + SLOWLY + COMMAND, "worker", str(path), "far"]
    with contextlib.closing(proxy), process(*far) as worker:
        stats, said = go(cut_and_heal, **graph)
        assert worker.wait(30) == 0, "the process there is the one that was started there"
    assert proxy.cuts >= 2, "control: the line and a link went that way"
    assert (stats.frames.into, stats.frames.out, stats.frames.dropped) == (40, 40, 0), said
    assert stats.restarts == int(noticed), said
    assert noticed or "worker far was out of reach for a moment" in said, "control: it was cut"
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [round(float(frame.pts * frame.time_base) * 25) for frame in container.decode(video=0)]
    assert times == list(range(40)), "none is lost, doubled or out of order"


@pytest.fixture
def two_hosts():
    """Two network namespaces with a cable between them: the addresses, and how to run something in each."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command ip (iproute2)")
    names = [f"wf{os.getpid()}{side}" for side in "ab"]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True)

    refused = [made.stderr for name in names if (made := ip("netns", "add", name)).returncode]
    try:
        if refused or (cable := ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])).returncode:
            pytest.skip(f"this machine gives no network namespaces: {(refused or [cable.stderr])[0].strip()}")
        for number, name in enumerate(names, start=1):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "address", "add", f"10.213.77.{number}/24", "dev", name)
            for device in ("lo", name):
                assert not ip("-n", name, "link", "set", device, "up").returncode
        yield [(f"10.213.77.{n}", ["ip", "netns", "exec", name]) for n, name in enumerate(names, start=1)]
    finally:
        for name in names:
            ip("netns", "del", name)  # and its end of the cable, with which the other goes


def test_two_network_namespaces_give_the_same_bytes_as_one_process(two_hosts, tmp_path, exact_bundle, short_folder):
    (here, in_here), (there, in_there) = two_hosts
    _, graph = graph_of(tmp_path, exact_bundle, f"tcp://{here}:{{}}", f"tcp://{there}:{{}}")
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump(graph))
    python = [sys.executable, "-c", COMMAND]
    environment = {**os.environ, "WARPFUSE_RUN": str(short_folder), "WARPFUSE_SHM": str(tmp_path)}
    far = [*in_there, *python, "worker", str(path), "far"]
    near = [*in_here, *python, "run", str(path)]
    with process(*far, env=environment) as worker, process(*near, env=environment, stderr=subprocess.PIPE) as running:
        _, said = running.communicate(timeout=120)
        assert running.returncode == 0 and worker.wait(30) == 0, said.decode()
    assert b"waiting for worker far" in said
    assert hashlib.sha256((tmp_path / "out.mp4").read_bytes()).hexdigest() == digest_alone(graph, tmp_path)
