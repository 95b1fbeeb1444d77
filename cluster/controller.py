"""The controller of a cluster: it asks every host about once a second, gives orders, and answers `warpfuse cluster`.

One thread does all of it. What has to outlive it is in one file, written before what follows from it is done; all else
is asked of the hosts, so that a controller that begins anew touches no stream.
"""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq

from warpfuse.cluster.config import ClusterConfig, cluster_config
from warpfuse.cluster.ledger import Books
from warpfuse.cluster.packing import Host, load_of
from warpfuse.cluster.reconcile import Action, Add, Kept, Reconciler
from warpfuse.cluster.rollout import HostNow, Rollout
from warpfuse.cluster.warden import HostOrders, HostTold, Opening, Warming
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.files import write_whole
from warpfuse.graph.control.messages import ControlSocket, Denied, Done, EndLife, Grant, Message, StartLife, ask_for
from warpfuse.graph.control.run_directory import RunDirectory, find_run
from warpfuse.graph.errors import ConfigError

_FIXED = ("name", "head", "port", "page", "store", "orphan_s")  # keys of `cluster` that take a new cluster
_PERIOD_S = 1.0
_SILENT_S = 3.0  # after so long a host is told not to answer
_SOON_S = 0.2  # while orders are under way


class ClusterEngine(Protocol):
    """What a cluster is made of. No call waits for a node that does not answer."""

    def hosts(self) -> Sequence[Host]:
        """The hosts of the nodes there are now, whether they answer or not."""

    def exchange(self, orders: Mapping[str, HostOrders]) -> Mapping[str, HostTold]:
        """Carry orders to hosts, by their names, and tell what is heard of hosts by now. Any host may be missing."""

    def troubles(self) -> Sequence[str]:
        """What is wrong with nodes that there could be, one line each."""

    def stop(self) -> None:
        """End all hosts, and the nodes."""


class Apply(Message, frozen=True):
    """Run the streams of this cluster file, and no others."""

    keys: dict[str, Any]


class Warm(Message, frozen=True):
    """Have every node fetch and build what hosts of this cluster file need."""

    keys: dict[str, Any]


class GetWarmed(Message, frozen=True):
    """Ask how far the last `Warm` is."""


class GetStatus(Message, frozen=True):
    """Ask what runs where."""


class Drain(Message, frozen=True):
    """Move the streams of a node elsewhere, and place none on it; on: False ends that."""

    node: str
    on: bool = True


class Move(Message, frozen=True):
    """Move a stream to a host."""

    stream: str
    host: str


class Down(Message, frozen=True):
    """End all streams, hosts and nodes."""


class HostState(msgspec.Struct, frozen=True):
    """A host as `warpfuse cluster status` shows it.

    load  share of its card that its streams are reckoned with
    node  that it is on
    http  where it serves figures and pictures; empty: it does not
    """

    name: str
    gpu: str
    state: str
    load: float
    streams: list[str]
    node: str = ""
    http: str = ""


class StreamState(msgspec.Struct, frozen=True):
    """A stream as `warpfuse cluster status` shows it.

    host   that runs it; none: ""
    state  runs, waits or done
    why    it does not run, one line
    lives  begun so far
    """

    name: str
    host: str
    state: str
    into: int
    out: int
    repeated: int
    dropped: int
    reckoned: int
    lives: int
    why: str = ""


class Status(Message, frozen=True):
    """What runs where."""

    hosts: list[HostState]
    streams: list[StreamState]
    troubles: list[str]


class WarmState(Message, frozen=True):
    """Hosts that are being warmed. None: not yet; "": it is; else why it failed."""

    hosts: dict[str, str | None]


Asked = Apply | Warm | GetWarmed | GetStatus | Drain | Move | Down
Told = Status | WarmState | Done | Denied

_ASKED: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(Asked)
_TOLD: msgspec.msgpack.Decoder[Told] = msgspec.msgpack.Decoder(Told)


def ask_controller(cluster: str, request: Asked, *, timeout_s: float = 30.0) -> Told:
    """Ask the controller of a cluster, on the machine of its head. Raises ConfigError."""
    try:
        folder = find_run(cluster)
    except ConfigError as error:
        raise ConfigError(f"{error}. `warpfuse cluster up` starts a cluster; ask on the machine of its head") from None
    return ask_for(folder, request, _TOLD, name=cluster, timeout_s=timeout_s)


class Controller:
    """See the module. Times in seconds, of a clock that never goes back.

    engine  makes what the cluster of this file is made of
    state   the file that outlives it
    """

    def __init__(self, engine: Callable[[ClusterConfig], ClusterEngine], state: Path, now_s: float) -> None:
        self._state = state
        written = _read(state)
        self._raw: dict[str, Any] = written["file"]
        self._draining: set[str] = set(written["draining"])
        self._openings: dict[str, dict[str, Any]] = written.get("openings", {})
        self._rollout = Rollout(written.get("opened", {}), written.get("current"), written.get("leaving"))
        self._attempt: str = written.get("attempt") or secrets.token_hex(8)
        self._warming: Warming | None = None
        self._warmed: dict[str, str | None] = {}
        kept = {
            name: Kept(one["generation"], one["done"], Books(**one["closed"])) for name, one in written["kept"].items()
        }
        self._streams = Reconciler(cluster_config(self._raw), now_s, kept)
        self._engine = engine(self.config)
        self._written = written
        self._hosts: list[Host] = []
        self._told: dict[str, tuple[float, HostTold]] = {}
        self._now_s = now_s
        self._orders: list[Action] = []
        self.down = False

    @property
    def config(self) -> ClusterConfig:
        """What is wanted."""
        return self._streams.config

    def step(self, now_s: float) -> bool:
        """Exchange orders for what the hosts tell, and find what is to be done next. True: something is."""
        self._now_s = now_s
        hosts = self._engine.hosts()
        self._roll_out(hosts)
        self._hosts = [self._as_drained(host) for host in hosts]
        orders = {host.name: self._orders_for(host.name) for host in self._hosts}
        sent = {(one.host, one.stream.name): one for one in self._orders if isinstance(one, Add)}
        self._told = {name: self._told[name] for name in orders.keys() & self._told.keys()}
        for name, told in self._engine.exchange(orders).items():
            self._told[name] = now_s, told
            for stream, why in told.refused.items():
                if (name, stream) in sent:
                    self._streams.refuse(sent[name, stream], why, now_s)
            if told.beat is not None:
                self._streams.hear(name, told.beat, now_s)
            if self._warming is not None and told.warmed is not None and told.warmed.attempt == self._warming.attempt:
                self._warmed[name] = told.warmed.error
        self._orders = self._streams.tick(self._hosts, now_s)
        self._keep()
        return bool(self._orders)

    def answer(self, request: Asked) -> Told:
        """Carry out a request. Raises ConfigError."""
        match request:
            case Apply():
                self._apply(request.keys)
            case Warm():
                self._warm(cluster_config(request.keys))
            case GetWarmed():
                return self._warm_state()
            case GetStatus():
                return self._status()
            case Drain():
                self._drain(request.node, request.on)
            case Move():
                self._streams.move(request.stream, request.host)
            case Down():
                self.down = True
        self._keep()
        return Done()

    def stop(self) -> None:
        """End all hosts and nodes."""
        self._engine.stop()

    def _as_drained(self, host: Host) -> Host:
        draining = host.node in self._draining or host.name == self._rollout.leaving
        return Host(host.name, host.node, host.gpu, host.labels, draining=draining)

    def _roll_out(self, hosts: Sequence[Host]) -> None:
        """Find which host is to be opened with what, and which is to be left for that."""
        wanted = _version(self.config.host_keys)
        self._openings[wanted] = dict(self.config.host_keys)
        now = [self._now_of(host) for host in hosts]
        config = self.config
        self._rollout.step(wanted, now, config.streams, config.pools, self._streams.placed)
        self._openings = {version: self._openings[version] for version in {wanted, *self._rollout.opened.values()}}

    def _now_of(self, host: Host) -> HostNow:
        at_s, told = self._told.get(host.name, (float("-inf"), HostTold()))
        answers = self._now_s - at_s < _SILENT_S and told.beat is not None
        same = told.version == self._rollout.opened.get(host.name)
        warm = told.warmed.error if told.warmed is not None and told.warmed.attempt == self._attempt else None
        ready = answers and same and told.beat is not None and told.beat.ready
        return HostNow(host, answers, ready, warm, self._streams.can_leave(host.name))

    def _warm(self, config: ClusterConfig) -> None:
        self._warming = Warming(secrets.token_hex(8), dict(config.host_keys), config.sizes)
        self._warmed = {host.name: None for host in self._hosts}

    def _warm_state(self) -> WarmState:
        there = {host.name for host in self._hosts}
        told = {name: one for name, one in self._warmed.items() if name in there}
        if self._warming is None:
            raise ConfigError("nothing is being warmed: the controller has begun anew; `warpfuse cluster warm` again")
        if None not in told.values():
            self._warming = None
        return WarmState(told)

    def _orders_for(self, host: str) -> HostOrders:
        begin, end = list[StartLife](), list[EndLife]()
        for order in self._orders:
            if order.host != host:
                continue
            if isinstance(order, Add):
                stream = order.stream
                begin.append(StartLife(stream.name, dict(stream.keys), stream.digest, stream.unique, order.grant))
            else:
                end.append(EndLife(order.stream, order.generation))
        grants: dict[str, Grant] = self._streams.grants(host)
        version = self._rollout.opened[host]
        opening = Opening(version, self._openings[version])
        return HostOrders(grants, tuple(begin), tuple(end), opening, self._warming_of(host))

    def _warming_of(self, host: str) -> Warming | None:
        config = self.config
        if host == self._rollout.current:
            return Warming(self._attempt, dict(config.host_keys), config.sizes)
        return self._warming if self._warmed.get(host, "") is None else None

    def _apply(self, raw: dict[str, Any]) -> None:
        new, old = cluster_config(raw), self.config
        same = {
            **{key: (getattr(old.cluster, key), getattr(new.cluster, key)) for key in _FIXED},
            "secrets.dir": (old.secrets.dir, new.secrets.dir),
        }
        if changed := sorted(key for key, (before, now) in same.items() if before != now):
            raise ConfigError(
                f"{', '.join(changed)}: this cluster was begun with another value;"
                " `warpfuse cluster down`, then `up` with this file"
            )
        self._streams.want(new)
        self._raw, self._attempt = raw, secrets.token_hex(8)

    def _drain(self, node: str, on: bool) -> None:
        known = sorted({host.node for host in self._hosts})
        if node not in known:
            raise ConfigError(f"there is no node {node!r}; known: {', '.join(known) or 'none'}")
        (self._draining.add if on else self._draining.discard)(node)

    def _status(self) -> Status:
        config, placed, why = self.config, self._streams.placed, self._streams.troubles
        wanted = _version(config.host_keys)
        told = {name: one for name, (at_s, one) in self._told.items() if self._now_s - at_s < _SILENT_S}
        hosts = []
        for host in self._hosts:
            now = told.get(host.name)
            state = (now.trouble if now else "it does not answer") or "runs"
            if self._rollout.opened.get(host.name) != wanted:
                state += ", to be opened anew"
            own = sorted(name for name, at in placed.items() if at == host.name and name in config.streams)
            load = sum(load_of(config.streams[name], config.pools[config.streams[name].pool]) for name in own)
            hosts.append(
                HostState(
                    host.name,
                    host.gpu,
                    f"{state}, drained" if host.draining else state,
                    load,
                    own,
                    host.node,
                    now.http if now else "",
                )
            )
        running = {
            name
            for now in told.values()
            for name, seen in (now.beat.streams if now.beat else {}).items()
            if not seen.counts.over
        }
        streams = []
        for name in config.streams:
            books, at = self._streams.ledger.books(name), placed.get(name, "")
            state = "done" if name in self._streams.done else "runs" if at and name in running else "waits"
            frames = books.into, books.out, books.repeated, books.dropped, books.reckoned, books.lives
            streams.append(StreamState(name, at, state, *frames, why.get(name, "")))
        rollout = [self._rollout.trouble] if self._rollout.trouble else []
        return Status(hosts, streams, [*self._engine.troubles(), *rollout])

    def _keep(self) -> None:
        kept = {name: asdict(one) for name, one in self._streams.kept.items()}
        state = {
            "file": self._raw,
            "draining": sorted(self._draining),
            "kept": kept,
            "opened": dict(self._rollout.opened),
            "current": self._rollout.current,
            "leaving": self._rollout.leaving,
            "attempt": self._attempt,
            "openings": dict(self._openings),
        }
        if state != self._written:
            write_state(self._state, state)
            self._written = state


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the file that outlives a controller. Only its user reads it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(state).encode(), mode=0o600)


def with_file(path: Path, raw: Mapping[str, Any]) -> None:
    """Have the next controller begin with this cluster file, and with what the one before has kept.

    Raises ConfigError: a file that cannot be used.
    """
    cluster_config(raw)
    before = _read(path) if path.exists() else {"draining": [], "kept": {}}
    write_state(path, {**before, "file": dict(raw)})


def _version(keys: Mapping[str, Any]) -> str:
    """Of the keys that hosts are opened with."""
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); remove it, and the cluster begins anew") from None
    return found


def serve(controller: Controller, cluster: str, stop: threading.Event) -> None:
    """Be the controller until `stop` is set or the cluster is taken down. Raises ConfigError: there is one already."""
    with RunDirectory(cluster) as folder, zmq.Context() as context:
        socket = ControlSocket(context, folder.path, _ASKED)
        try:
            due_s = time.monotonic()
            while not (stop.is_set() or controller.down):
                socket.socket.poll(max(0, int((due_s - time.monotonic()) * 1000)))
                asked = False
                for to, request in socket.requests():
                    socket.reply(to, _answered(controller, request))
                    asked = True
                if asked or time.monotonic() >= due_s:
                    begun_s = time.monotonic()
                    due_s = begun_s + (_SOON_S if controller.step(begun_s) else _period_s(controller))
            if controller.down:
                controller.stop()
        finally:
            socket.close()


def _period_s(controller: Controller) -> float:
    """Seconds between two exchanges: several to a lease, so that one that is late ends nothing."""
    return min(_PERIOD_S, controller.config.cluster.lease_s / 6)


def _answered(controller: Controller, request: Asked) -> Told:
    try:
        return controller.answer(request)
    except WarpfuseError as error:
        return Denied(str(error))
