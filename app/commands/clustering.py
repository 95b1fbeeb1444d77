"""`warpfuse cluster`: streams on several hosts."""

import importlib.util
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from warpfuse.graph.errors import ConfigError
from warpfuse.terminal import say, stopped_by_signals

if TYPE_CHECKING:
    from warpfuse.cluster.config import ClusterConfig
    from warpfuse.cluster.controller import Status
    from warpfuse.cluster.packing import Host, Placement

# Note: imports inside the functions, as in cli.py.

_NODE = re.compile(
    r"(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<gpu>[A-Za-z0-9][A-Za-z0-9_.-]*)(:(?P<cards>[1-9][0-9]?))?"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,23}")
_LABEL = re.compile(r"([A-Za-z0-9_.-]+)=([A-Za-z0-9_.-]+)")

_LOOK_UP_S = 0.5
_ANSWER_S = 5.0

File = Annotated[Path, typer.Argument(metavar="CLUSTER.yaml", help="The cluster file.")]
NodeName = Annotated[str | None, typer.Option("--node", help="What this machine is called; else as its system says.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="For `needs`; repeatable.")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="Name of the cluster, if several run here.")]

app = typer.Typer(no_args_is_help=True, help="Streams over several hosts.")


@app.callback()
def _group() -> None:
    """Streams over several hosts."""


@app.command()
def plan(
    file: File,
    *,
    node: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KIND[:CARDS][,LABEL=VALUE]", help="A host, as in 10.0.0.11=L4:2,site=north."),
    ] = None,
) -> int:
    """What would run where on these hosts, what is left free, and which streams find no room (exit code 2 then)."""
    from warpfuse.cluster.config import read_cluster_file
    from warpfuse.cluster.packing import place

    config = read_cluster_file(file)
    hosts = [host for one in node or [] for host in _hosts(one)]
    if not hosts:
        raise ConfigError("no host: give --node NAME=KIND[:CARDS] for each, as in --node 10.0.0.11=L4:2")
    names = [host.name for host in hosts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--node {twice.rpartition(':')[0]}: is given twice")
    found = place(config.streams.values(), hosts, config.pools, {}, reserve=config.cluster.reserve)
    console = Console(soft_wrap=True)
    console.print(_table(config, hosts, found))
    for why in found.refused.values():
        console.print(why, highlight=False, markup=False)
    return 2 if found.refused else 0


@app.command()
def up(
    file: File,
    *,
    node: NodeName = None,
    label: Labels = None,
    no_hosts: Annotated[bool, typer.Option("--no-hosts", help="Run no streams on this machine.")] = False,
) -> None:
    """Be the head of a cluster on this machine, and run the streams of a file, until it is stopped."""
    _check_ray()
    from warpfuse.cluster.config import cluster_config
    from warpfuse.cluster.ray_node import Node, be_head, make_token

    settings = cluster_config(_named_from_here(file), str(file)).cluster
    here = Node(_node_name(node), (settings.head, settings.port), _labels(label), hosts=not no_hosts)
    raw = _pinned(_named_from_here(file), settings.store)
    make_token()
    with (
        stopped_by_signals("ending the streams of this machine; once more to stop at once") as stop,
        ExitStack() as undo,
    ):
        if settings.page is not None:
            undo.enter_context(_page(settings.name, settings.head, settings.page))
        be_head(here, settings.name, raw, stop, say)


@app.command()
def join(
    head: Annotated[str, typer.Argument(metavar="HEAD[:PORT]", help="Where `warpfuse cluster up` runs.")],
    *,
    node: NodeName = None,
    label: Labels = None,
) -> None:
    """Have this machine run streams of a cluster, until it is stopped."""
    there = _head(head)
    _check_ray()
    from warpfuse.cluster.ray_node import Node
    from warpfuse.cluster.ray_node import join as join_cluster

    here = Node(_node_name(node), there, _labels(label))
    with stopped_by_signals("ending the streams of this machine; once more to stop at once") as stop:
        join_cluster(here, stop, say)


@app.command()
def apply(file: File) -> None:
    """Run the streams of a cluster file, and no others. Those whose keys are as they were go on. On the head."""
    from warpfuse.cluster.config import cluster_config
    from warpfuse.cluster.controller import Apply, ask_controller

    raw = _named_from_here(file)
    settings = cluster_config(raw, str(file)).cluster
    name = settings.name
    ask_controller(name, Apply(_pinned(raw, settings.store)))
    print(f"cluster {name} runs the {len(raw.get('streams') or {})} streams of {file}")


@app.command()
def warm(file: File) -> int:
    """Have every host fetch the bundle and build what it needs for it, beside the streams that run. On the head.

    Exit code 2: it failed on a host.
    """
    from warpfuse.cluster.config import cluster_config
    from warpfuse.cluster.controller import GetWarmed, Warm, WarmState, ask_controller

    raw = _named_from_here(file)
    settings = cluster_config(raw, str(file)).cluster
    ask_controller(settings.name, Warm(_pinned(raw, settings.store)))
    said: dict[str, str] = {}
    while True:
        told = ask_controller(settings.name, GetWarmed())
        assert isinstance(told, WarmState)
        for host, error in told.hosts.items():
            if error is not None and host not in said:
                said[host] = error
                print(f"{host}: {error or 'warm'}", flush=True)
        if None not in told.hosts.values():
            return 2 if any(said.values()) else 0
        time.sleep(_LOOK_UP_S)


@app.command()
def status(*, cluster: Cluster = None) -> int:
    """Hosts and streams, what each has done, and what is wrong (exit code 2 then). On the head."""
    from warpfuse.cluster.controller import GetStatus, Status, ask_controller

    told = ask_controller(_running(cluster), GetStatus())
    assert isinstance(told, Status)
    console = Console(soft_wrap=True)
    for table in _tables(told):
        console.print(table)
    troubles = [*told.troubles, *(f"{stream.name}: {stream.why}" for stream in told.streams if stream.why)]
    for trouble in troubles:
        console.print(trouble, highlight=False, markup=False)
    return 2 if troubles else 0


@app.command()
def drain(
    node: Annotated[str, typer.Argument(metavar="NODE")],
    *,
    cluster: Cluster = None,
    off: Annotated[bool, typer.Option("--off", help="Let it run streams again.")] = False,
) -> None:
    """Move the streams of a node elsewhere, and place none on it. On the head."""
    from warpfuse.cluster.controller import Drain, ask_controller

    ask_controller(_running(cluster), Drain(node, on=not off))


@app.command()
def move(
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="As `status` names it: NODE:CARD.")],
    *,
    cluster: Cluster = None,
) -> None:
    """Move a stream to a host. On the head."""
    from warpfuse.cluster.controller import Move, ask_controller

    ask_controller(_running(cluster), Move(stream, host))


@app.command()
def down(*, cluster: Cluster = None) -> None:
    """End all streams, hosts and nodes of a cluster. On the head."""
    from warpfuse.cluster.controller import Down, ask_controller

    ask_controller(_running(cluster), Down())


def _head(told: str) -> tuple[str, int]:
    """Address and port of HEAD or HEAD:PORT. Raises ConfigError."""
    from warpfuse.cluster.config import ClusterSettings

    address, colon, text = told.partition(":")
    port = int(text) if text.isdecimal() else 0 if colon else ClusterSettings().port
    if not address or not 1 <= port <= 65535:
        raise ConfigError(f"{told!r}: expected HEAD or HEAD:PORT, as in 10.0.0.1:6379")
    return address, port


def _check_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("the cluster needs the package ray: pip install 'warpfuse[cluster]'")


def _node_name(given: str | None) -> str:
    name = given or re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname().partition(".")[0]).strip("-")[:24]
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--node {name!r}: expected letters, digits and -, 24 at most")
    return name


def _labels(given: list[str] | None) -> dict[str, str]:
    found = {label: _LABEL.fullmatch(label) for label in given or []}
    if wrong := next((label for label, match in found.items() if match is None), None):
        raise ConfigError(f"--label {wrong!r}: expected KEY=VALUE, as in site=north")
    return {match[1]: match[2] for match in found.values() if match is not None}


def _running(given: str | None) -> str:
    """The cluster whose controller runs on this machine."""
    from warpfuse.cluster.tokens import state_folder
    from warpfuse.engine.file_lock import is_held
    from warpfuse.graph.control.run_directory import runs_folder

    if given is not None:
        return given
    names = sorted(path.stem for path in state_folder().glob("*.json"))
    running = [name for name in names if is_held(runs_folder() / name / "lock")]
    if len(running) != 1:
        known = f"{', '.join(running)} run here: give --cluster NAME" if running else "none has its head here"
        raise ConfigError(f"which cluster? {known}")
    return running[0]


def _named_from_here(file: Path) -> dict[str, Any]:
    """Keys of a cluster file, with files and folders that it names from here: hosts are opened in other folders."""
    from warpfuse.graph.plan.raw_keys import read_graph_file
    from warpfuse.stages.sources.schemes import path_of, scheme_of

    def whole(address: Any) -> Any:
        is_path = isinstance(address, str) and scheme_of(address) == "file" and not address.startswith("${")
        return str(path_of(address).absolute()) if is_path else address

    raw = read_graph_file(file)
    bundle = raw.get("bundle")
    if isinstance(bundle, str) and Path(bundle).is_dir():
        raw["bundle"] = str(Path(bundle).absolute())
    streams = raw.get("streams")
    for keys in streams.values() if isinstance(streams, dict) else ():
        if isinstance(keys, dict):
            keys.update({key: whole(keys[key]) for key in ("source",) if key in keys})
            if isinstance(keys.get("sinks"), list):
                keys["sinks"] = [whole(sink) for sink in keys["sinks"]]
    return raw


def _pinned(raw: dict[str, Any], store: str) -> dict[str, Any]:
    """Keys with the bundle named by its sha256, kept where hosts fetch it from. One that ships is on every host.

    Raises BundleError.
    """
    from warpfuse.cluster.bundle_store import PINNED, BundleStore
    from warpfuse.cluster.config import FROM_HEAD
    from warpfuse.engine.bundle import locate_bundle, shipped_bundles

    bundle = str(raw.get("bundle", "embedded"))
    if not store or PINNED.fullmatch(bundle):
        return raw
    folder = locate_bundle(bundle)
    if folder.parent == shipped_bundles():
        return raw
    return {**raw, "bundle": BundleStore(None if store == FROM_HEAD else Path(store)).keep(folder)}


@contextmanager
def _page(cluster: str, host: str, port: int) -> Iterator[None]:
    """The page of a cluster, on its head, within the block. Raises ConfigError."""
    from warpfuse.cluster.bundle_store import BundleStore
    from warpfuse.cluster.controller import GetStatus, Status, ask_controller
    from warpfuse.cluster.tokens import reading_token, state_folder, token_file
    from warpfuse.engine.files import write_whole

    def status() -> Status:
        told = ask_controller(cluster, GetStatus(), timeout_s=_ANSWER_S)
        assert isinstance(told, Status)
        return told

    try:
        from warpfuse.web.cluster_page import application
        from warpfuse.web.security import AccessRules
        from warpfuse.web.server import WebServer
    except ImportError as error:
        raise ConfigError(f"the cluster's page needs the package {error.name}: pip install 'warpfuse[web]'") from None
    token = reading_token(token_file())
    write_whole(state_folder() / "reading-token", token.encode(), mode=0o600)
    access = AccessRules(host, token=token)
    with WebServer(application(cluster, status, BundleStore(), access), access, port) as server:
        for url in server.urls:
            print(f"page of all streams: {url}", flush=True)
        yield


def _tables(told: "Status") -> tuple[Table, Table]:
    hosts = Table("host", "kind", "load", "streams", "state", box=None)
    for host in told.hosts:
        hosts.add_row(host.name, host.gpu, f"{host.load:.2f}", ", ".join(host.streams) or "-", host.state)
    streams = Table("stream", "host", "in", "out", "repeated", "dropped", "reckoned", "lives", "state", box=None)
    for stream in told.streams:
        frames = stream.into, stream.out, stream.repeated, stream.dropped, stream.reckoned, stream.lives
        streams.add_row(stream.name, stream.host or "-", *map(str, frames), stream.state)
    return hosts, streams


def _hosts(told: str) -> "list[Host]":
    """The cards of a node."""
    from warpfuse.cluster.packing import Host

    first, *rest = told.split(",")
    node, labels = _NODE.fullmatch(first), [_LABEL.fullmatch(label) for label in rest]
    if node is None or not all(labels):
        raise ConfigError(f"--node {told!r}: expected NAME=KIND[:CARDS][,LABEL=VALUE], as in 10.0.0.11=L4:2,site=north")
    own = {label[1]: label[2] for label in labels if label is not None}
    cards = int(node["cards"] or 1)
    return [Host(f"{node['node']}:{card}", node["node"], node["gpu"], own) for card in range(cards)]


def _table(config: "ClusterConfig", hosts: "list[Host]", found: "Placement") -> Table:
    from warpfuse.cluster.packing import load_of

    table = Table("host", "kind", "streams", "load", box=None)
    for host in hosts:
        streams = [config.streams[name] for name, at in found.placed.items() if at == host.name]
        load = sum(load_of(stream, config.pools[stream.pool]) for stream in streams)
        told = ", ".join(sorted(stream.name for stream in streams)) or "-"
        table.add_row(host.name, host.gpu, told, f"{load:.2f}")
    return table
