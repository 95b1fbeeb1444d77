"""A cluster on Ray: it tells which nodes there are, and keeps a warden on each.

No frame, figure of a frame or secret is an argument or a result of a call here; one call a second goes to each node.
Run as a program this is the process of the controller, which `warpfuse cluster up` keeps running beside Ray's head.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from msgspec.structs import replace
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from warpfuse.cluster.config import FROM_HEAD, ClusterConfig
from warpfuse.cluster.controller import Controller, serve
from warpfuse.cluster.packing import Host
from warpfuse.cluster.ray_node import NODE_LABEL, VERSION_LABEL
from warpfuse.cluster.warden import HostOrders, HostSpec, HostTold, NodeSpec, Warden
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.redact import guard_process
from warpfuse.version import __version__

_KIND_LABEL = "ray.io/accelerator-type"
_OWN_LABELS = ("ray.io/", "warpfuse-")
_NAMESPACE = "warpfuse"
_ANSWER_S = 0.3  # for nodes to answer; who answers later is heard in the next exchange

_LEAVE_S = 10.0


class RayEngine:
    """See `ClusterEngine`. The process has to be connected to Ray.

    spec  what hosts are opened with, but for their names
    """

    def __init__(self, spec: HostSpec) -> None:
        self._spec = spec
        self._nodes: dict[str, dict[str, Any]] = {}
        self._troubles: list[str] = []
        self._wardens: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}

    def hosts(self) -> Sequence[Host]:
        """See `ClusterEngine`."""
        self._nodes, self._troubles = {}, []
        for node in ray.nodes():
            name = node["Labels"].get(NODE_LABEL)
            if not node["Alive"] or not name:
                continue
            version = node["Labels"].get(VERSION_LABEL)
            if version != __version__:
                self._troubles.append(
                    f"{name} runs warpfuse {version}, the head {__version__}: pip install warpfuse=={__version__} there"
                )
            elif name in self._nodes:
                self._troubles.append(f"two nodes are called {name}: give one another name, `cluster join --node NAME`")
            else:
                self._nodes[name] = node
        return [host for name, node in sorted(self._nodes.items()) for host in _hosts_of(name, node)]

    def exchange(self, orders: Mapping[str, HostOrders]) -> Mapping[str, HostTold]:
        """See `ClusterEngine`."""
        by_node: dict[str, dict[str, HostOrders]] = {}
        for host, order in orders.items():
            node, _, card = host.rpartition(":")
            by_node.setdefault(node, {})[card] = self._on_card(node, order)
        for name, own in by_node.items():
            if name in self._nodes and name not in self._asked:
                self._asked[name] = self._warden(name).exchange.remote(own)
        names = {ref: name for name, ref in self._asked.items()}
        done, _ = ray.wait(list(names), num_returns=len(names), timeout=_ANSWER_S) if names else ([], [])
        told: dict[str, HostTold] = {}
        for ref in done:
            name = names[ref]
            del self._asked[name]
            try:
                answers: dict[str, HostTold] = ray.get(ref)
            except RayError:  # the warden or its node is gone: the next exchange finds or makes another
                self._wardens.pop(name, None)
                continue
            told.update({f"{name}:{card}": one for card, one in answers.items()})
        return told

    def troubles(self) -> Sequence[str]:
        """See `ClusterEngine`."""
        return self._troubles

    def stop(self) -> None:
        """See `ClusterEngine`."""
        leaving = [self._warden(name).leave.remote() for name in self._nodes]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_S)

    def _warden(self, name: str) -> Any:
        if name not in self._wardens:
            node = self._nodes[name]
            # Note: the node's id is in the name, so a node that comes again has a warden of its own.
            self._wardens[name] = (
                ray.remote(Warden)
                .options(
                    name=f"warden:{name}:{node['NodeID']}",
                    get_if_exists=True,
                    lifetime="detached",
                    num_cpus=0,
                    max_restarts=-1,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                )
                .remote(NodeSpec(name, _cards_of(node), replace(self._spec, address=node["NodeManagerAddress"])))
            )
        return self._wardens[name]

    def _on_card(self, name: str, order: HostOrders) -> HostOrders:
        """The orders, with keys for a host that has a card."""
        if name not in self._nodes or not _cards_of(self._nodes[name]):
            return order
        opening, warm = order.opening, order.warm
        return replace(
            order,
            opening=opening and replace(opening, keys={"device": "cuda", **opening.keys}),
            warm=warm and replace(warm, keys={"device": "cuda", **warm.keys}),
        )


def _cards_of(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("GPU", 0))


def _hosts_of(name: str, node: Mapping[str, Any]) -> list[Host]:
    labels = {key: value for key, value in node["Labels"].items() if not key.startswith(_OWN_LABELS)}
    cards = _cards_of(node)
    kind = node["Labels"].get(_KIND_LABEL, "gpu") if cards else "cpu"
    return [Host(f"{name}:{card}", name, kind, labels) for card in range(cards or 1)]


def spec_of(config: ClusterConfig) -> HostSpec:
    """What the hosts of a cluster are opened with, but for their names."""
    settings = config.cluster
    store = f"http://{settings.head}:{settings.page}" if settings.store == FROM_HEAD else settings.store
    return HostSpec("", dict(config.host_keys), config.secrets.dir, settings.orphan_s, store)


def main() -> None:
    """The process of the controller: ADDRESS of the head, and the file that outlives it."""
    guard_process()
    address, state = sys.argv[1], Path(sys.argv[2])
    stop = threading.Event()
    ray.init(address=address, namespace=_NAMESPACE, log_to_driver=False, configure_logging=False)
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, lambda *_: stop.set())
    try:
        controller = Controller(lambda config: RayEngine(spec_of(config)), state, time.monotonic())
        serve(controller, controller.config.cluster.name, stop)
    except WarpfuseError as error:
        print(f"warpfuse: {error}", file=sys.stderr)
        sys.exit(2)
    ray.shutdown()
    os._exit(0 if controller.down else 1)


if __name__ == "__main__":
    main()
