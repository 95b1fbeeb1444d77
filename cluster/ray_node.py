"""A machine in a cluster: it keeps Ray's processes running, and on the head the controller, until it is stopped.

Ray listens on every address of a machine, whatever it is told, and who reaches it runs code as its user. So a cluster
always asks for a token. Ray's folder, with its logs and sockets, is in a folder that only the user can enter.
"""

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from warpfuse.cluster.controller import with_file
from warpfuse.cluster.tokens import state_folder, token_file
from warpfuse.cluster.warden import LEAVING, stop_hosts
from warpfuse.engine.files import write_whole
from warpfuse.graph.control.run_directory import RunDirectory, runs_folder
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.processes.parent_death import die_with_parent
from warpfuse.version import __version__

Say = Callable[[str], None]

NODE_LABEL, VERSION_LABEL = "warpfuse-node", "warpfuse-version"
"""Labels of a node of Ray; one without the first runs no streams."""

_OBJECTS = 80 << 20  # bytes of Ray's object store, the least it takes: nothing is put there
_AGAIN_S = (1.0, 2.0, 5.0, 10.0)
_ATTEMPTS = 3  # to start Ray the first time
_CHECKS = {"period_ms": "500", "timeout_ms": "1500", "failure_threshold": "3"}
"""A frozen node is dead for Ray after 6 s; by its own defaults after 65 s."""
_RECONNECT_S = "10"  # until a node gives up a head that has gone
_DRAIN_S = "0"  # Ray waits 30 s for wardens that never end by themselves; the hosts have ended before


@dataclass(frozen=True)
class Node:
    """A machine that is to be in a cluster.

    name    of the node; hosts are called after it
    head    address and port of the head
    labels  for `needs` of streams
    hosts   it runs stream hosts
    """

    name: str
    head: tuple[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)
    hosts: bool = True


def make_token() -> None:
    """The token of a cluster that has none yet."""
    if not token_file().exists():
        write_whole(token_file(), secrets.token_hex(32).encode(), mode=0o600)


def be_head(node: Node, cluster: str, raw: Mapping[str, object], stop: threading.Event, say: Say) -> None:
    """Be the head of a cluster with the streams of this file, until `stop` is set or the cluster is taken down.

    Raises ConfigError.
    """
    state = state_folder() / f"{cluster}.json"
    with RunDirectory(node.name) as folder:
        with_file(state, raw)
        host, port = node.head
        say(f"every other node needs {token_file()}, with mode 0600; then: warpfuse cluster join {host}:{port}")
        controller = [sys.executable, "-m", "warpfuse.cluster.ray_engine", f"{host}:{port}", str(state)]
        address = ["--head", "--port", str(port), "--include-dashboard", "false", "--no-monitor"]
        own = ["--node-ip-address", host, "--ray-client-server-port", str(port + 1)]
        _keep(_Kept(node, [*address, *own], controller), folder, stop, say)


def join(node: Node, stop: threading.Event, say: Say) -> None:
    """Be a node of a cluster, until `stop` is set or the cluster is taken down. Raises ConfigError."""
    host, port = node.head
    if not token_file().exists():
        raise ConfigError(f"the token of the cluster is missing: copy it from the head to {token_file()}, mode 0600")
    try:
        socket.create_connection((host, port), 5).close()
    except OSError as error:
        raise ConfigError(
            f"no head answers at {host}:{port} ({error.strerror or error}); does `warpfuse cluster up` run there?"
        ) from None
    with RunDirectory(node.name) as folder:
        _keep(_Kept(node, ["--address", f"{host}:{port}"]), folder, stop, say)


@dataclass
class _Kept:
    """What is kept running. ray: arguments of `ray start`; controller: a command, on the head."""

    node: Node
    ray: list[str]
    controller: list[str] | None = None


def _keep(kept: _Kept, folder: RunDirectory, stop: threading.Event, say: Say) -> None:
    """Keep processes running, those that end again, until `stop` is set or the controller ends by itself."""
    env, log = _environment(), runs_folder() / f"{kept.node.name}.ray.log"
    running, failures, was_up = list[subprocess.Popen[bytes]](), 0, False
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as told:
        try:
            while not stop.is_set():
                before = log.stat().st_size
                start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *_arguments(kept)]
                running = [_started(start, env, told)]
                if _is_up(running[0], log, before, stop):
                    was_up, failures = True, 0
                    say(f"node {kept.node.name} is up")
                    if kept.controller is not None:
                        running.append(_started(kept.controller, env, told))
                    if _watched(running, kept, env, told, stop):
                        return
                if stop.is_set():
                    return
                _end(running)
                failures += 1
                if not was_up and failures >= _ATTEMPTS:
                    raise ConfigError(f"Ray does not start; its log is {log}, and ends: {_last_line(log)}")
                say(f"Ray has ended on node {kept.node.name}; it is started again")
                stop.wait(_AGAIN_S[min(failures, len(_AGAIN_S)) - 1])
        finally:
            (folder.path / LEAVING).touch()
            stop_hosts(kept.node.name)
            _end(running)
            shutil.rmtree(_ray_folder(kept.node), ignore_errors=True)


def _watched(
    running: list["subprocess.Popen[bytes]"], kept: _Kept, env: dict[str, str], log: object, stop: threading.Event
) -> bool:
    """Wait until Ray has ended; a controller that fails is started again. True: the cluster was taken down."""
    while not stop.wait(0.2):
        if running[0].poll() is not None:
            return False
        if kept.controller is not None and (code := running[1].poll()) is not None:
            if code == 0:
                return True
            stop.wait(1.0)
            running[1] = _started(kept.controller, env, log)
    return False


def _arguments(kept: _Kept) -> list[str]:
    own = {VERSION_LABEL: __version__} | ({NODE_LABEL: kept.node.name} if kept.node.hosts else {})
    labels = ",".join(f"{key}={value}" for key, value in {**kept.node.labels, **own}.items())
    place = _ray_folder(kept.node)
    place.mkdir(mode=0o700, exist_ok=True)
    fixed = ["--temp-dir", str(place / "t"), "--object-store-memory", str(_OBJECTS), "--labels", labels]
    without = ["--include-log-monitor", "false", "--disable-usage-stats"]  # no driver here reads the wardens' logs
    return [*kept.ray, *fixed, *without, "--num-cpus", "1", "--log-style", "record"]


def _ray_folder(node: Node) -> Path:
    """Ray's own. Its path has few characters, since sockets are far below it."""
    return runs_folder() / f"ray-{hashlib.sha256(node.name.encode()).hexdigest()[:6]}"


def _environment() -> dict[str, str]:
    checks = {f"RAY_health_check_{key}": value for key, value in _CHECKS.items()}
    token = {} if os.environ.get("RAY_AUTH_TOKEN") else {"RAY_AUTH_TOKEN_PATH": str(token_file())}
    fixed = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # Ray's own is 15
    times = {
        "RAY_gcs_rpc_server_reconnect_timeout_s": _RECONNECT_S,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": _DRAIN_S,
    }
    return {**os.environ, **fixed, **token, **checks, **times}


def _started(command: list[str], env: dict[str, str], log: object) -> "subprocess.Popen[bytes]":
    """A process in a session of its own, so that a Ctrl-C is ours alone; it ends with this one."""
    parent = os.getpid()
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),
    )


def _is_up(ray: "subprocess.Popen[bytes]", log: Path, before: int, stop: threading.Event) -> bool:
    """Wait until Ray says in its log that it runs. False: it has ended. before: length of the log when it began"""
    while ray.poll() is None and not stop.wait(0.1):
        if b"Ray runtime started" in log.read_bytes()[before:]:
            return True
    return False


def _end(running: list["subprocess.Popen[bytes]"]) -> None:
    for process in reversed(running):  # the controller first
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)  # Ray gives each of its processes a second or two
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it is empty"
