"""A cluster on real Ray: a head and a node on this machine, hosts that are killed and frozen, and a secret."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import yaml
from support.waiting import until

from warpfuse.cluster.bundle_store import BundleStore
from warpfuse.cluster.controller import Apply, Down, Drain, GetStatus, Move, ask_controller
from warpfuse.engine.bundle import DESCRIPTION, sha256_of
from warpfuse.engine.file_lock import is_held
from warpfuse.graph.control.messages import GetCounts, ask
from warpfuse.graph.control.run_directory import runs_folder
from warpfuse.graph.errors import ConfigError

pytest.importorskip("ray", reason="Ray is not installed: pip install 'warpfuse[cluster]'")

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 120
COMMAND = [sys.executable, "-c", "from warpfuse.cli import main; main()", "cluster"]
CAMERA = {"source": "pattern:96x64@25,live=1,frames=1000000", "sinks": ["null:"], "rate": 25, "size": "96x64"}
CANARY = "xyzzy-plugh-canary"


@contextmanager
def asking_camera():
    """An RTSP server that asks for a password and lets nobody in; yields its port and the passwords it was told."""
    told: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with closing(connection), connection.makefile("rb") as lines:
            number = b"1"
            for line in lines:
                if line.lower().startswith(b"cseq:"):
                    number = line.split()[1]
                elif line.lower().startswith(b"authorization: basic"):
                    told.append(base64.b64decode(line.split()[2]).decode())
                elif not line.strip():
                    says = b'RTSP/1.0 401 Unauthorized\r\nCSeq: %s\r\nWWW-Authenticate: Basic realm="r"\r\n\r\n'
                    with suppress(OSError):
                        connection.sendall(says % number)

    def serve():
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with closing(listening):
        yield listening.getsockname()[1], told


def two_free_ports():
    """The first of two ports in a row that nobody has."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
            with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
                return port


class Cluster:
    """A head and one node; each has a host."""

    def __init__(self, folder, file):
        self.folder, self.file, self.port = folder, file, file["cluster"]["port"]
        self.processes, self.killed = {}, set()

    def begin(self):
        file = self.folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(self.file))
        self.start("n1", "up", str(file))
        until(self.answers, "the head", PATIENCE_S)
        self.start("n2", "join", f"127.0.0.1:{self.port}")

    def answers(self):
        assert self.processes["n1"].poll() is None, self.said("n1")
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def start(self, name, *words):
        """Each node has a cache of its own, as on a machine of its own."""
        own = {**os.environ, "WARPFUSE_CACHE": f"{os.environ['WARPFUSE_CACHE']}/{name}"}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen([*COMMAND, *words, "--node", name], stdout=log, stderr=log, env=own)

    def page(self, path):
        return opened(f"http://127.0.0.1:{self.file['cluster']['page']}{path}", self.reading_token())

    def reading_token(self):
        return (self.folder / "state" / "warpfuse" / "cluster" / "reading-token").read_text()

    def apply(self, bundle):
        """Another bundle, as a user gives it on the head."""
        self.file["bundle"] = str(bundle)
        (self.folder / "cluster.yaml").write_text(yaml.safe_dump(self.file))
        own = {**os.environ, "WARPFUSE_CACHE": f"{os.environ['WARPFUSE_CACHE']}/n1"}
        subprocess.run([*COMMAND, "apply", str(self.folder / "cluster.yaml")], env=own, capture_output=True, check=True)

    def said(self, name):
        return (self.folder / f"{name}.log").read_text()

    def status(self):
        for name, process in self.processes.items():
            assert process.poll() is None, self.said(name)
        with suppress(ConfigError):  # the controller is not there yet
            return ask_controller("farm", GetStatus())
        return None

    def wait(self, holds, what):
        """The status for which it holds."""
        heard = []

        def now():
            heard[:] = [self.status()]
            return heard[0] is not None and holds(heard[0]) and heard[0]

        try:
            return until(now, what, PATIENCE_S)
        except AssertionError as error:
            logs = "\n".join(path.read_text() for path in runs_folder().glob("*.log"))
            raise AssertionError(f"{error}; {heard[0]}\n{logs}") from None

    def running(self, told, *names):
        return all(stream.state == "runs" for stream in told.streams if stream.name in names)

    def host_of(self, name):
        return next(stream.host for stream in self.status().streams if stream.name == name)

    def process_of(self, host):
        return psutil.Process(int((runs_folder() / host.replace(":", "-") / "pid").read_text()))


def opened(address, token):
    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        return answer.read()


def stream(told, name):
    return next(stream for stream in told.streams if stream.name == name)


def balanced(own):
    under_way = own.into + own.repeated - own.out - own.dropped
    return 0 <= under_way < 50


@pytest.fixture(scope="module")
def farm(tmp_path_factory, exact_bundle):
    """One cluster for all laws, since Ray takes ten seconds to begin."""
    folder = tmp_path_factory.mktemp("farm")
    with tempfile.TemporaryDirectory(prefix="wf", dir="/tmp") as short, pytest.MonkeyPatch.context() as environment:
        environment.setenv("WARPFUSE_RUN", short)
        environment.setenv("XDG_STATE_HOME", str(folder / "state"))
        environment.setenv("WARPFUSE_CACHE", str(folder / "cache"))
        (folder / "secrets").mkdir(mode=0o700)
        (folder / "secrets" / "gate").write_text(f"me:{CANARY}\n")
        (folder / "secrets" / "gate").chmod(0o600)
        file = {
            "cluster": {
                "name": "farm",
                "lease_s": 10,
                "reserve": 0,
                "port": two_free_ports(),
                "orphan_s": 300,
                "page": two_free_ports(),
                "store": "head",
            },
            "bundle": BundleStore(folder / "cache" / "n1" / "bundles").keep(Path(exact_bundle)),
            "secrets": {"dir": str(folder / "secrets")},
            "streams": {"door": {**CAMERA, "unique": True}, "yard": CAMERA},
        }
        cluster = Cluster(folder, file)
        try:
            yield cluster
        finally:
            for process in cluster.processes.values():
                process.kill()
                process.wait()
            for path in runs_folder().iterdir():
                if is_held(path / "lock"):
                    with suppress(psutil.NoSuchProcess):
                        psutil.Process(int((path / "pid").read_text())).kill()


@pytest.fixture
def cluster(farm):
    """The cluster with both hosts at work, and both streams on one of them."""
    if not farm.processes:
        farm.begin()
    farm.wait(at_work, "both hosts")
    farm.wait(lambda told: farm.running(told, "door", "yard"), "both streams")
    if farm.host_of("yard") != farm.host_of("door"):
        ask_controller("farm", Move("yard", farm.host_of("door")))
    farm.wait(lambda told: farm.running(told, "door", "yard") and together(told), "both streams on one host")
    return farm


def at_work(told):
    return [host.state for host in told.hosts] == ["runs", "runs"]


def together(told):
    return stream(told, "yard").host == stream(told, "door").host != ""


def elsewhere(told, host):
    """Whether both streams show pictures on another host than this."""
    return all(own.host not in ("", host) and own.state == "runs" and own.out for own in told.streams)


def test_streams_of_a_killed_host_begin_another_life_elsewhere_and_the_books_go_on(cluster):
    first, told = cluster.host_of("door"), cluster.status()
    lives = {own.name: own.lives for own in told.streams}
    cluster.killed.add(cluster.process_of(first).pid)
    cluster.process_of(first).kill()
    told = cluster.wait(lambda told: elsewhere(told, first), "elsewhere")
    assert {own.name: own.lives - 1 for own in told.streams} == lives
    assert all(balanced(own) for own in told.streams)


def test_streams_of_a_frozen_host_go_on_elsewhere_and_the_unique_one_has_ended_there_when_it_thaws(cluster):
    host = cluster.host_of("door")
    frozen = cluster.process_of(host)
    frozen.suspend()
    try:
        cluster.wait(lambda told: elsewhere(told, host), "the other host")
    finally:
        frozen.resume()
    until(lambda: ask(host.replace(":", "-"), GetCounts()).streams["door"].over, "the end of the unique one there")
    told = cluster.wait(at_work, "both hosts once more")
    assert all(balanced(own) and own.reckoned for own in told.streams)


def test_a_controller_that_begins_anew_takes_over_what_runs(cluster):
    """The unique stream may end with its lease meanwhile."""
    before = stream(cluster.status(), "yard")
    psutil.Process(int((runs_folder() / "farm" / "pid").read_text())).kill()
    until(lambda: not is_held(runs_folder() / "farm" / "lock"), "its end")
    told = cluster.wait(lambda told: cluster.running(told, "door", "yard"), "another controller")
    after = stream(told, "yard")
    assert (after.lives, after.host, after.reckoned) == (before.lives, before.host, before.reckoned)
    assert after.out >= before.out and all(balanced(own) for own in told.streams)


def test_a_secret_reaches_the_camera_and_nothing_else(cluster):
    folder = cluster.folder
    with asking_camera() as (port, passwords):
        gate = {**CAMERA, "source": f"rtsp://${{secret:gate}}@127.0.0.1:{port}/1"}
        ask_controller("farm", Apply({**cluster.file, "streams": {**cluster.file["streams"], "gate": gate}}))
        told = cluster.wait(lambda told: stream(told, "gate").why, "why the gate does not run")
        assert f"me:{CANARY}" in passwords, "control: the host has used it"
        places = found_in(folder, runs_folder())
        assert str(folder / "secrets" / "gate") in places, "control: it is looked for"
        assert places == [str(folder / "secrets" / "gate")]
        assert CANARY not in repr(told) + ray_state(cluster.port) and not processes_with(CANARY)
        assert processes_with("warpfuse.cluster.host_process"), "control: processes are looked through"
    ask_controller("farm", Apply(cluster.file))


def test_the_page_tells_where_figures_are_and_shows_a_picture_of_a_stream(cluster):
    targets = until(lambda: len(found := json.loads(cluster.page("/sd"))) == 2 and found, "two targets")
    assert [target["labels"]["host"] for target in targets] == ["n1:0", "n2:0"]
    addresses = [f"http://{target['targets'][0]}/metrics" for target in targets]
    figures = "".join(opened(address, cluster.reading_token()).decode() for address in addresses)
    assert 'warpfuse_stream_frames_total{stream="yard",what="out"}' in figures
    picture = cv2.imdecode(np.frombuffer(cluster.page("/api/streams/yard/picture.jpg"), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 96, 3) and picture.std() > 10


def test_another_bundle_is_fetched_from_the_head_and_rolled_out_host_by_host(cluster, exact_bundle):
    other = Path(shutil.copytree(exact_bundle, cluster.folder / "other"))
    about = json.loads((other / DESCRIPTION).read_text())
    (other / DESCRIPTION).write_text(json.dumps({**about, "source": "another one"}))
    sha256 = sha256_of(other / DESCRIPTION)
    caches = [BundleStore(cluster.folder / "cache" / name / "bundles") for name in ("n1", "n2")]
    assert [store.find(sha256) for store in caches] == [None, None]
    lives, seen = {own.name: own.lives for own in cluster.status().streams}, []
    cluster.apply(other)

    def rolled_out(told):
        seen.append([host.state for host in told.hosts])
        return at_work(told) and all(store.find(sha256) for store in caches)

    cluster.wait(rolled_out, "both hosts with the other bundle")
    told = cluster.wait(lambda told: cluster.running(told, "door", "yard"), "both streams")
    assert all(any(state.startswith("runs") for state in states) for states in seen), "one host at a time"
    assert any(state == "runs, to be opened anew" for states in seen for state in states), "control"
    assert all(1 <= own.lives - lives[own.name] <= 2 and balanced(own) for own in told.streams)


def test_a_drained_node_has_no_stream_and_of_a_cluster_that_is_taken_down_nothing_is_left(cluster):
    first = cluster.host_of("door")
    ask_controller("farm", Drain(first.partition(":")[0]))
    cluster.wait(lambda told: elsewhere(told, first), "a drained node")
    ask_controller("farm", Drain(first.partition(":")[0], on=False))
    ask_controller("farm", Down())
    for name, process in cluster.processes.items():
        assert process.wait(PATIENCE_S) == 0, cluster.said(name)
    cluster.processes.clear()
    left = [path for path in runs_folder().iterdir() if path.suffix != ".log"]
    left = [path.name for path in left if path.is_file() or int((path / "pid").read_text()) not in cluster.killed]
    assert left == [] and not processes_with(str(runs_folder()))


def found_in(*folders):
    """Files below these folders with the secret in them."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if CANARY.encode() in path.read_bytes()]


def processes_with(text):
    """Processes with a text in what anybody may see of them, or their user."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and text in repr((process.cmdline(), process.environ())):
                found.append(process.pid)
    return found


def ray_state(port):
    """What Ray tells of a cluster to whoever asks."""
    code = (
        "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)\n"
        "print(ray.nodes(), ray._private.state.actors(), ray._private.state.workers())"
    )
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{os.environ['XDG_STATE_HOME']}/warpfuse/cluster/token"}
    asked = [sys.executable, "-c", code, f"127.0.0.1:{port}"]
    told = subprocess.run(asked, env={**os.environ, **token}, capture_output=True, text=True, check=True).stdout
    assert "warden:n1" in told, "control: the wardens are in it"
    return told
