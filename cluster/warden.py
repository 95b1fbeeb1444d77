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
from secrets import randbelow
from typing import Any

import msgspec
import psutil

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

_ANSWER_S = 1.0
_AGAIN_S = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)  # until a host that ended by itself is started again
_STEADY_S = 60.0  # after so long it counts as one that has not failed
_LAUNCH = """
import subprocess, sys
log = open(sys.argv[1], "wb", opener=lambda path, flags: __import__("os").open(path, flags, 0o600))
host = subprocess.Popen([sys.executable, "-m", "warpfuse.cluster.host_process"], stdin=subprocess.PIPE,
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
    """

    name: str
    keys: dict[str, Any]
    secrets: str
    orphan_s: float


class NodeSpec(msgspec.Struct, frozen=True):
    """The hosts of a node.

    run    name of the node's own run: hosts are called after it
    cards  how many there are; 0: one host without a card
    hosts  what each is opened with, but for its name
    """

    run: str
    cards: int
    hosts: HostSpec


class HostOrders(msgspec.Struct, frozen=True):
    """What is said to a host in one exchange: lives that end and begin, and then the leases that are confirmed."""

    grants: dict[str, Grant] = {}
    begin: tuple[StartLife, ...] = ()
    end: tuple[EndLife, ...] = ()


class HostTold(msgspec.Struct, frozen=True):
    """What is heard of a host in one exchange.

    beat     none: it does not answer
    refused  streams it was to begin and did not: why, one line
    trouble  why it is not ready, one line
    """

    beat: HostBeat | None = None
    refused: dict[str, str] = {}
    trouble: str = ""


class Warden:
    """See the module. The cards of a node are called after their place: "0", "1" and so on."""

    def __init__(self, spec: NodeSpec) -> None:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = given.split(",") if given else [str(n) for n in range(spec.cards)]
        cards = visible[: spec.cards] or [""]
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
    names = [path.parent.name for path in runs_folder().glob(f"{run}-*/{SPEC_DIGEST}")]
    there = [name for name in names if re.fullmatch(rf"{re.escape(run)}-\d+", name)]
    for name in there:
        with suppress(WarpfuseError):  # it ends already
            ask_at(runs_folder() / name, Stop(), name=name)
    while any(is_held(runs_folder() / name / "lock") for name in there):
        time.sleep(0.05)


class _HostOfCard:
    def __init__(self, spec: NodeSpec, number: str, card: str) -> None:
        self._spec = msgspec.json.encode(msgspec.structs.replace(spec.hosts, name=f"{spec.run}-{number}"))
        self._name = f"{spec.run}-{number}"
        self._card = card
        self._folder = runs_folder() / self._name
        self._log = runs_folder() / f"{self._name}.log"
        self._pid: int | None = None
        self._begun_s = float("-inf")
        self._failures = 0
        self._beats = 1 + randbelow(1 << 52)

    def exchange(self, orders: HostOrders, may_start: bool) -> HostTold:
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
        return HostTold(beat, refused)

    def _absent(self, may_start: bool) -> HostTold:
        now_s = time.monotonic()
        if self._pid is not None and _is_alive(self._pid):
            return HostTold(self._empty_beat(), trouble="it is starting")
        why = self._last_words() if self._pid is not None else ""
        if self._pid is not None:
            self._pid = None
            steady = now_s - self._begun_s > _STEADY_S
            self._failures = 0 if steady else min(self._failures + 1, len(_AGAIN_S) - 1)
        if may_start and now_s - self._begun_s >= _AGAIN_S[self._failures]:
            self._start()
            self._begun_s = now_s
        return HostTold(self._empty_beat(), trouble=why or "it is starting")

    def _start(self) -> None:
        """A process that is no child of this one, nor of Ray's."""
        given = os.environ.items()
        env = {key: value for key, value in given if not key.startswith("RAY_") and key != "OMP_NUM_THREADS"}
        if self._card:
            env["CUDA_VISIBLE_DEVICES"] = self._card
        command = [sys.executable, "-c", _LAUNCH, str(self._log)]
        self._pid = int(subprocess.run(command, input=self._spec, capture_output=True, env=env, check=True).stdout)

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

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        said = f", and said last: {redact(lines[-1])[:300]}" if lines else ""
        return f"it has ended (its log is {self._log}){said}"


def _is_alive(pid: int) -> bool:
    try:
        status: str = psutil.Process(pid).status()
        return status != "zombie"
    except psutil.NoSuchProcess:
        return False
