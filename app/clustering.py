"""`warpfuse cluster`: streams on several hosts. It plans, but starts nothing yet."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from warpfuse.graph.errors import ConfigError

if TYPE_CHECKING:
    from warpfuse.cluster.config import ClusterConfig
    from warpfuse.cluster.packing import Host, Placement

# Note: imports inside the functions, as in cli.py.

_NODE = re.compile(
    r"(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<gpu>[A-Za-z0-9][A-Za-z0-9_.-]*)(:(?P<cards>[1-9][0-9]?))?"
)
_LABEL = re.compile(r"([A-Za-z0-9_.-]+)=([A-Za-z0-9_.-]+)")

app = typer.Typer(no_args_is_help=True, help="Streams over several hosts.")


@app.callback()
def _group() -> None:
    """Streams over several hosts."""


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(metavar="CLUSTER.yaml", help="The cluster file.")],
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
