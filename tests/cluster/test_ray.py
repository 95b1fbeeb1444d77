"""A cluster on real Ray: a head and two nodes on this machine, hosts that are killed and frozen, and a secret.

All of it is one cluster, since Ray takes ten seconds to begin.
"""

import base64
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress

import psutil
import pytest
import yaml
from support.waiting import until

from warpfuse.cluster.controller import Apply, Down, Drain, GetStatus, Move, ask_controller
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
    """A head without hosts, and its nodes."""

    def __init__(self, folder, file):
        self.folder, self.file, self.port = folder, file, file["cluster"]["port"]
        self.processes = {}

    def start(self, name, *words):
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen([*COMMAND, *words, "--node", name], stdout=log, stderr=log)

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


def stream(told, name):
    return next(stream for stream in told.streams if stream.name == name)


def balanced(own):
    under_way = own.into + own.repeated - own.out - own.dropped
    return 0 <= under_way < 50


@pytest.fixture
def cluster(short_folder, tmp_path, monkeypatch, exact_bundle):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "gate").write_text(f"me:{CANARY}\n")
    (tmp_path / "secrets" / "gate").chmod(0o600)
    file = {
        "cluster": {"name": "farm", "lease_s": 10, "reserve": 0, "port": two_free_ports(), "orphan_s": 300},
        "bundle": str(exact_bundle),
        "secrets": {"dir": str(tmp_path / "secrets")},
        "streams": {"door": {**CAMERA, "unique": True}, "yard": CAMERA},
    }
    cluster = Cluster(tmp_path, file)
    try:
        yield cluster
    finally:
        for process in cluster.processes.values():
            process.kill()
            process.wait()
        for folder in runs_folder().iterdir():
            if is_held(folder / "lock"):
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(int((folder / "pid").read_text())).kill()


def test_streams_go_on_whatever_is_killed_or_frozen_and_no_secret_is_told(cluster, tmp_path):
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster.file))
    cluster.start("head", "up", str(tmp_path / "cluster.yaml"), "--no-hosts")
    cluster.wait(lambda told: True, "the controller")
    for node in ("n1", "n2"):
        cluster.start(node, "join", f"127.0.0.1:{cluster.port}")
    cluster.wait(lambda told: [host.state for host in told.hosts] == ["runs"] * 2, "two hosts")
    told = cluster.wait(lambda told: cluster.running(told, "door", "yard"), "two streams")
    if cluster.host_of("door") != cluster.host_of("yard"):
        ask_controller("farm", Move("yard", cluster.host_of("door")))
        cluster.wait(lambda told: stream(told, "yard").host == stream(told, "door").host, "both on one host")

    # A host is killed: its streams are begun elsewhere, and the books go on.
    first = cluster.host_of("door")
    lives = [stream(cluster.status(), name).lives for name in ("door", "yard")]
    cluster.process_of(first).kill()
    told = cluster.wait(
        lambda told: all(s.host not in ("", first) and s.state == "runs" and s.out for s in told.streams), "elsewhere"
    )
    assert [stream(told, name).lives for name in ("door", "yard")] == [one + 1 for one in lives]
    assert all(balanced(own) for own in told.streams)

    # A host is frozen: they run elsewhere when its leases are over, and the unique one has ended there when it thaws.
    cluster.wait(lambda told: [host.state for host in told.hosts] == ["runs"] * 2, "both hosts again")
    second = cluster.host_of("door")
    frozen = cluster.process_of(second)
    frozen.suspend()
    cluster.wait(lambda told: all(s.host == first and s.state == "runs" for s in told.streams), "the other host")
    frozen.resume()
    until(lambda: ask(second.replace(":", "-"), GetCounts()).streams["door"].over, "the end of the unique one there")
    told = cluster.wait(lambda told: all(host.state == "runs" for host in told.hosts), "both hosts once more")
    assert all(balanced(own) and own.reckoned for own in told.streams)

    # A controller is killed: the next one takes over what runs. The unique one may have ended with its lease meanwhile.
    lives = stream(told, "yard").lives
    controller = psutil.Process(int((runs_folder() / "farm" / "pid").read_text()))
    controller.kill()
    until(lambda: not is_held(runs_folder() / "farm" / "lock"), "its end")
    told = cluster.wait(lambda told: cluster.running(told, "door", "yard"), "another controller")
    assert (stream(told, "yard").lives, stream(told, "yard").host) == (lives, first)
    assert all(balanced(own) and own.reckoned for own in told.streams)

    # A stream with a secret: it reaches the camera, and nothing else.
    with asking_camera() as (port, passwords):
        gate = {**CAMERA, "source": f"rtsp://${{secret:gate}}@127.0.0.1:{port}/1"}
        with_gate = {**cluster.file, "streams": {**cluster.file["streams"], "gate": gate}}
        ask_controller("farm", Apply(with_gate))
        told = cluster.wait(lambda told: stream(told, "gate").why, "why the gate does not run")
        assert f"me:{CANARY}" in passwords, "control: the host has used it"
        places = found_in(tmp_path, runs_folder())
        assert str(tmp_path / "secrets" / "gate") in places, "control: it is looked for"
        assert places == [str(tmp_path / "secrets" / "gate")]
        assert CANARY not in repr(told) + ray_state(cluster.port) and not processes_with(CANARY)
        assert processes_with("warpfuse.cluster.host_process"), "control: processes are looked through"
    ask_controller("farm", Apply(cluster.file))

    # A node is drained, and the cluster is taken down: nothing is left.
    ask_controller("farm", Drain(first.partition(":")[0]))
    cluster.wait(lambda told: all(s.host == second and s.state == "runs" for s in told.streams), "a drained node")
    ask_controller("farm", Down())
    for name, process in cluster.processes.items():
        assert process.wait(PATIENCE_S) == 0, cluster.said(name)
    left = [path.name for path in runs_folder().iterdir() if not path.name.endswith(".log")]
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
