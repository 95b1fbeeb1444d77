"""The hosts of one node: it starts a process for each card, asks them, and carries orders to them.

A host outlives its warden: it is no child of it, and has a session of its own. The next warden finds it by the lock of
its folder. That lock also tells, at once and for certain, that a host is gone: its streams may then run elsewhere
without waiting for their leases.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from secrets import randbelow
from typing import Any

import msgspec
import psutil

from warpfuse.cluster.host_server import ADDRESS
from warpfuse.cluster.tokens import token_file
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.file_lock import is_held
from warpfuse.engine.redact import redact
from warpfuse.graph.control.messages import (
    EndLife,
    GetBeat,
    Grant,
    HostBeat,
    Reply,
    Request,
    StartLife,
    Stop,
    ask_at,
)
from warpfuse.graph.control.run_directory import runs_folder
from warpfuse.graph.errors import ConfigError

LEAVING = "leaving"
"""A file of this name in the folder of a node's own run: its hosts are ending, and none is started."""

SPEC_DIGEST = "spec"
"""A file of this name in a host's folder tells what it was opened with: the SHA-256 of that JSON."""

_WARM = "-warm"  # ends the name of the process that warms
_ANSWER_S = 1.0
_AGAIN_S = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)  # until a host that ended by itself is started again
_STEADY_S = 60.0  # after so long it counts as one that has not failed
_LAUNCH = """
import subprocess, sys
log = open(sys.argv[1], "wb", opener=lambda path, flags: __import__("os").open(path, flags, 0o600))
host = subprocess.Popen([sys.executable, "-m", "warpfuse.cluster.host_process", *sys.argv[2:]], stdin=subprocess.PIPE,
                        stdout=log, stderr=log, start_new_session=True)
host.stdin.write(sys.stdin.buffer.read())
host.stdin.close()
print(host.pid)
"""


class HostSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host is opened with.

    name      of its folder, as `warpfuse ctl` calls it
    keys      for the networks, as of a graph file
    secrets   folder of what `${secret:NAME}` stands for
    orphan_s  it ends when no controller has asked for so long
    store     where a bundle that is named by its sha256 is fetched from: an address of the head, or a folder
    token     file with the token of the cluster
    address   of its machine, where it serves figures and pictures; none: it does not
    """

    name: str
    keys: dict[str, Any]
    secrets: str
    orphan_s: float
    store: str = ""
    token: str = ""
    address: str = ""


class NodeSpec(msgspec.Struct, frozen=True):
    """The hosts of a node.

    run    name of the node's own run: hosts are called after it
    cards  how many there are; 0: one host without a card
    hosts  what each is opened with, but for its name
    """

    run: str
    cards: int
    hosts: HostSpec


class Opening(msgspec.Struct, frozen=True):
    """Keys that a host is opened with. version: of these keys, for who asks"""

    version: str
    keys: dict[str, Any]


class Warming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node is to fetch and build ahead: everything for a host with these keys and streams of these sizes.

    attempt  another one is tried anew, even where this was done before
    """

    attempt: str
    keys: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]


class HostOrders(msgspec.Struct, frozen=True):
    """What is said to a host in one exchange: lives that end and begin, and then the leases that are confirmed.

    opening  what it is to be opened with: a host that was opened with something else ends, and is begun anew; none: as
             the node's spec says
    warm     done beside the host, in a process of its own
    """

    grants: dict[str, Grant] = {}
    begin: tuple[StartLife, ...] = ()
    end: tuple[EndLife, ...] = ()
    opening: Opening | None = None
    warm: Warming | None = None


class Warmed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attempt to warm a node is over. error: why it failed, one line; else empty"""

    attempt: str
    error: str


class HostTold(msgspec.Struct, frozen=True):
    """What is heard of a host in one exchange.

    beat     none: it does not answer
    refused  streams it was to begin and did not: why, one line
    trouble  why it is not ready, one line
    version  of the keys that it was to be opened with; a beat is of a host that was
    warmed   the attempt that was ordered is over; none: it is under way, or none was ordered
    http     where it serves figures and pictures, as in 10.0.0.2:41234; empty: not yet
    """

    beat: HostBeat | None = None
    refused: dict[str, str] = {}
    trouble: str = ""
    version: str = ""
    warmed: Warmed | None = None
    http: str = ""


class Warden:
    """See the module. The cards of a node are called after their place: "0", "1" and so on."""

    def __init__(self, spec: NodeSpec) -> None:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = given.split(",") if given else [str(n) for n in range(spec.cards)]
        cards = visible[: spec.cards] or [""]
        spec = msgspec.structs.replace(spec, hosts=msgspec.structs.replace(spec.hosts, token=str(token_file())))
        self._run = runs_folder() / spec.run
        self._leaving = self._run / LEAVING
        self._hosts = {str(n): _HostOfCard(spec, str(n), card) for n, card in enumerate(cards)}
        self._pool = ThreadPoolExecutor(len(cards), "wf:warden")

    def exchange(self, orders: Mapping[str, HostOrders]) -> dict[str, HostTold]:
        """Carry the orders to the hosts, by card, and tell what they say. A host that is not there is started."""
        may_start = not self._leaving.exists()
        asked = {
            card: self._pool.submit(host.exchange, orders.get(card, HostOrders()), may_start)
            for card, host in self._hosts.items()
        }
        return {card: answer.result() for card, answer in asked.items()}

    def leave(self) -> None:
        """Have the node leave its cluster: its own run ends, and the hosts with it."""
        with suppress(OSError, ValueError):
            os.kill(int((self._run / "pid").read_text()), signal.SIGTERM)


def stop_hosts(run: str) -> None:
    """End all hosts of a node; returns when they have ended, with what was read finished.

    run  name of the node's own run
    """
    names = [path.parent.name for path in runs_folder().glob(f"{run}-*/pid")]
    there = [name for name in names if re.fullmatch(rf"{re.escape(run)}-\d+({_WARM})?", name)]
    for name in there:
        if name.endswith(_WARM):
            with suppress(OSError, ValueError):  # it has ended meanwhile
                if is_held(runs_folder() / name / "lock"):
                    os.kill(int((runs_folder() / name / "pid").read_text()), signal.SIGTERM)
        else:
            with suppress(WarpfuseError):  # it ends already
                ask_at(runs_folder() / name, Stop(), name=name)
    while any(is_held(runs_folder() / name / "lock") for name in there):
        time.sleep(0.05)
    for path in runs_folder().glob(f"{run}-*.warm.json"):
        if re.fullmatch(rf"{re.escape(run)}-\d+.warm.json", path.name):
            path.unlink(missing_ok=True)


class _HostOfCard:
    def __init__(self, spec: NodeSpec, number: str, card: str) -> None:
        self._name = f"{spec.run}-{number}"
        self._plain = msgspec.structs.replace(spec.hosts, name=self._name)
        self._spec = msgspec.json.encode(self._plain)
        self._card = card
        self._folder = runs_folder() / self._name
        self._log = runs_folder() / f"{self._name}.log"
        self._warming = _WarmProcess(self._plain, card)
        self._pid: int | None = None
        self._begun_s = float("-inf")
        self._failures = 0
        self._beats = 1 + randbelow(1 << 52)

    def exchange(self, orders: HostOrders, may_start: bool) -> HostTold:
        opening = orders.opening or Opening("", self._plain.keys)
        spec = msgspec.json.encode(msgspec.structs.replace(self._plain, keys=opening.keys))
        if spec != self._spec:  # one that failed with other keys has not failed with these
            self._spec, self._failures, self._begun_s, self._pid = spec, 0, float("-inf"), None
        warmed = self._warming.done(orders.warm, may_start) if orders.warm is not None else None
        return msgspec.structs.replace(self._told(orders, may_start), version=opening.version, warmed=warmed)

    def _told(self, orders: HostOrders, may_start: bool) -> HostTold:
        if not self._is_there():
            return self._absent(may_start)
        if not (self._folder / "control").exists():
            return HostTold(self._empty_beat(), trouble="it is starting")
        if self._is_other():
            with suppress(WarpfuseError):  # asked again the next time
                self._ask(Stop())
            return HostTold(trouble="it was opened with other keys, and ends")
        refused: dict[str, str] = {}
        try:
            for ended in orders.end:
                self._ask(ended)
            for begun in orders.begin:
                try:
                    self._ask(begun)
                except ConfigError as error:
                    refused[begun.name] = str(error)
            beat = self._ask(GetBeat(orders.grants))
        except WarpfuseError as error:
            return HostTold(trouble=redact(str(error)))
        assert isinstance(beat, HostBeat)
        return HostTold(beat, refused, http=self._http())

    def _http(self) -> str:
        try:
            return (self._folder / ADDRESS).read_text()
        except OSError:
            return ""

    def _absent(self, may_start: bool) -> HostTold:
        now_s = time.monotonic()
        if self._pid is not None and _is_alive(self._pid):
            return HostTold(self._empty_beat(), trouble="it is starting")
        why = _last_words(self._log) if self._pid is not None else ""
        if self._pid is not None:
            self._pid = None
            steady = now_s - self._begun_s > _STEADY_S
            self._failures = 0 if steady else min(self._failures + 1, len(_AGAIN_S) - 1)
        if may_start and now_s - self._begun_s >= _AGAIN_S[self._failures]:
            self._start()
            self._begun_s = now_s
        return HostTold(self._empty_beat(), trouble=why or "it is starting")

    def _start(self) -> None:
        self._pid = _launched(self._spec, self._log, self._card)

    def _empty_beat(self) -> HostBeat:
        """The beat of a host that is not there: it has no stream, and takes none."""
        self._beats += 1
        return HostBeat(self._beats, {}, ready=False)

    def _is_there(self) -> bool:
        return is_held(self._folder / "lock")

    def _is_other(self) -> bool:
        try:
            return (self._folder / SPEC_DIGEST).read_text() != hashlib.sha256(self._spec).hexdigest()
        except OSError:
            return False

    def _ask(self, request: Request) -> Reply:
        return ask_at(self._folder, request, name=self._name, timeout_s=_ANSWER_S)


class _WarmProcess:
    """Fetches and builds what a host needs, in a process of its own, which outlives its warden too."""

    def __init__(self, spec: HostSpec, card: str) -> None:
        self._spec, self._card = spec, card
        self._name = f"{spec.name}{_WARM}"
        self._log = runs_folder() / f"{self._name}.log"
        self._begun: tuple[str, int] | None = None

    def done(self, order: Warming, may_start: bool) -> Warmed | None:
        """What became of this attempt; none: it is under way."""
        with suppress(OSError, msgspec.MsgspecError):
            told = msgspec.json.decode(warmed_file(self._spec.name).read_bytes(), type=Warmed)
            if told.attempt == order.attempt:
                return told
        if is_held(runs_folder() / self._name / "lock") or (self._begun is not None and _is_alive(self._begun[1])):
            return None
        if self._begun is not None and self._begun[0] == order.attempt:
            return Warmed(order.attempt, _last_words(self._log))
        if may_start:
            spec = msgspec.json.encode(msgspec.structs.replace(self._spec, name=self._name, keys=order.keys))
            given = msgspec.json.encode({"spec": msgspec.Raw(spec), "order": order})
            self._begun = order.attempt, _launched(given, self._log, self._card, "warm")
        return None


def warmed_file(host: str) -> Path:
    """Where the process that warms tells what became of it."""
    return runs_folder() / f"{host}.warm.json"


def _launched(given: bytes, log: Path, card: str, *words: str) -> int:
    """Start a process that is no child of this one, nor of Ray's. Returns its number.

    given  for its standard input
    card   that it sees; none: ""
    """
    known = os.environ.items()
    env = {key: value for key, value in known if not key.startswith("RAY_") and key != "OMP_NUM_THREADS"}
    if card:
        env["CUDA_VISIBLE_DEVICES"] = card
    command = [sys.executable, "-c", _LAUNCH, str(log), *words]
    return int(subprocess.run(command, input=given, capture_output=True, env=env, check=True).stdout)


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    said = f", and said last: {redact(lines[-1])[:300]}" if lines else ""
    return f"it has ended (its log is {log}){said}"


def _is_alive(pid: int) -> bool:
    try:
        status: str = psutil.Process(pid).status()
        return status != "zombie"
    except psutil.NoSuchProcess:
        return False
