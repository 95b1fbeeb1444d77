"""Which worker runs which stage, and what each link is made of as a consequence.

    workers: one                      every stage in one process
    workers: stages                   every stage in a process of its own
    workers:                          by name; every stage exactly once
      capture: [source]
      main: [upload, encode, flow, warp, encode_past, predict, fuse, decode, download]
      show: {stages: [sink_1], host: "tcp://10.0.0.2:7000"}

`host` is where a worker on another machine is reached: the links it sends take that port and those that follow. It is
started there by hand (`warpfuse worker`), and needs `listen` and `keys` at the top of the file. Inside a worker a link
is a reference that changes hands, between processes of a host shared memory, between hosts encrypted messages.

A worker calls its stages in lanes, a thread each: those that never work at the same time (`graph_plan.loop_of`) share
one, as do `upload` and `encode`; every other has its own. Inside a lane there are no links: one stage is called with
what another gave.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.plan.graph_plan import GraphPlan, NodePlan, loop_of
from warpfuse.graph.plan.workers import Place

_AHEAD = ("upload", "encode")


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ends of links find one another.

    folder  of ipc sockets, 0700; empty while nothing is opened
    listen  "tcp://ADDRESS:PORT" of the host that starts the run, or empty
    device  of the stages: what lies on a card stays there between processes
    """

    folder: str = ""
    listen: str = ""
    device: str = "cpu"


def place(plan: GraphPlan, workers: str | dict[str, Place], at: Rendezvous, *, live: bool = False) -> GraphPlan:
    """The plan with worker and lane of every node, and transport and endpoint of every link. Raises ConfigError."""
    assigned = _assigned(plan, workers, live)
    hosts = {name: p.host for name, p in workers.items()} if isinstance(workers, dict) else {}
    lanes = _lanes(plan, assigned)
    nodes = tuple(replace(node, worker=assigned[node.name], lane=lanes[node.name]) for node in plan.nodes)
    if any(hosts.values()) and not at.listen:
        far = next(name for name, host in hosts.items() if host)
        raise ConfigError(
            f"workers.{far}.host is on another machine; say where that finds this one: listen: tcp://ADDRESS:PORT"
        )
    by_name = {node.name: node for node in nodes}
    ports: dict[str, int] = {}
    calls = tuple(link for link in plan.links if lanes[link.sender] == lanes[link.receiver])
    between = [link for link in plan.links if link not in calls]
    links = tuple(_placed(link, number, by_name, hosts, at, ports) for number, link in enumerate(between))
    behind = len(links)  # numbers of bypasses follow those of links
    past = tuple(_placed(link, behind + i, by_name, hosts, at, ports) for i, link in enumerate(plan.bypasses))
    return replace(plan, nodes=nodes, links=links, bypasses=past, calls=calls)


def reader_of(workers: str | dict[str, Place]) -> str | None:
    """The worker of this host that reads a live source in a process of its own; none: the calling process, or far."""
    if isinstance(workers, dict):
        near = [name for name, place in workers.items() if "source" in place.stages and not place.host]
        return near[0] if near and len(workers) > 1 else None
    return {"auto": "capture", "live": "capture", "stages": "source"}.get(workers)


def several(workers: str | dict[str, Place], *, live: bool) -> bool:
    """Whether stages run in processes of their own."""
    chosen = _chosen(workers, live)
    return len(chosen) > 1 if isinstance(chosen, dict) else chosen != "one"


def with_worker(workers: str | dict[str, Place], stage: str) -> tuple[str | dict[str, Place], str]:
    """(the workers and one more, which runs this stage alone; its name)"""
    if not isinstance(workers, dict):
        return workers, stage
    name = stage
    while name in workers:
        name = f"{name}-alone"
    return {**workers, name: Place(stages=(stage,))}, name


def workers_of(plan: GraphPlan) -> list[str]:
    """The workers of a placed plan, in the order a frame meets them."""
    return list(dict.fromkeys(node.worker for node in plan.nodes))


def _lanes(plan: GraphPlan, workers: dict[str, str]) -> dict[str, str]:
    """The lane of every stage. Those of the loop that are in one worker share a lane, named after the first of them;
    so do `upload`, which hardly works, and `encode` behind it.

    The calls of a lane keep the order of the plan, in which every frame can go its way, so lanes that wait for one
    another never wait for good, however the loop is cut up.
    """
    together = {**dict.fromkeys(_AHEAD, "ahead"), **dict.fromkeys(loop_of(plan.links), "loop")}
    first: dict[tuple[str, str], str] = {}
    return {
        node.name: first.setdefault((workers[node.name], together[node.name]), node.name)
        if node.name in together
        else node.name
        for node in plan.nodes
    }


def _assigned(plan: GraphPlan, workers: str | dict[str, Place], live: bool) -> dict[str, str]:
    names = [node.name for node in plan.nodes]
    workers = _chosen(workers, live)
    if workers == "one":
        return dict.fromkeys(names, "main")
    if workers == "stages":
        return {name: name for name in names}
    if workers == "live":
        # PyAV's timeout takes the GIL for every packet, a peer that froze blocks a sink for seconds: neither of them
        # beside the networks. These stay together, for kernels of several processes take turns on a card.
        return {node.name: _apart(node) for node in plan.nodes}
    assert isinstance(workers, dict)
    return _named(names, workers)


def _chosen(workers: str | dict[str, Place], live: bool) -> str | dict[str, Place]:
    return ("live" if live else "one") if workers == "auto" else workers


def _apart(node: NodePlan) -> str:
    return "capture" if node.role == "source" else node.name if node.role == "sink" else "main"


def _named(names: Sequence[str], workers: dict[str, Place]) -> dict[str, str]:
    assigned: dict[str, str] = {}
    for worker, its in workers.items():
        for stage in its.stages:
            if stage not in names:
                near = difflib.get_close_matches(stage, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"this graph has: {', '.join(names)}"
                raise ConfigError(f"workers.{worker}: there is no stage {stage!r}; {hint}")
            if stage in assigned:
                raise ConfigError(
                    f"workers: stage {stage!r} is in {assigned[stage]!r} and in {worker!r}; once is right"
                )
            assigned[stage] = worker
    missing = [name for name in names if name not in assigned]
    if missing:
        raise ConfigError(f"workers: no worker runs {', '.join(missing)}; every stage needs one")
    return assigned


def _placed(
    link: LinkPlan,
    number: int,
    nodes: dict[str, NodePlan],
    hosts: dict[str, str],
    at: Rendezvous,
    ports: dict[str, int],
) -> LinkPlan:
    sender, receiver = nodes[link.sender], nodes[link.receiver]
    if sender.worker == receiver.worker:
        return replace(link, transport="local", endpoint=f"inproc://{link.name}")
    if hosts.get(sender.worker, "") == hosts.get(receiver.worker, ""):
        on_card = at.device.startswith("cuda") and sender.role == receiver.role == "stage" and link.sender != "download"
        return replace(link, transport="cuda-ipc" if on_card else "shm", endpoint=f"ipc://{at.folder}/{number}")
    base = hosts.get(sender.worker, "") or at.listen
    # The first port of the host that starts the run is the supervisor's, and those behind it are its lines to workers.
    taken = ports.get(base, 0 if hosts.get(sender.worker) else 1 + len(hosts))
    ports[base] = taken + 1
    address, _, port = base.rpartition(":")
    if int(port) + taken > 65535:
        raise ConfigError(f"{base}: {taken + 1} ports from there on are needed, the last is 65535")
    return replace(link, transport="inline", endpoint=f"{address}:{int(port) + taken}")
