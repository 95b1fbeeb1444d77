"""Opens the ends of links in one worker, for one epoch at a time."""

import contextlib
from collections.abc import Sequence

import zmq

from warpfuse.graph.links.curve import admission
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.shared_memory import RunFolder
from warpfuse.graph.links.transports import open_inlet, open_local, open_outlet
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.runtime.remote_hosts import keys_for

LinkEnds = tuple[dict[str, Inlet], dict[str, Outlet]]
"""The ends of links in this worker, by the link's name. The caller closes them."""


class Wiring:
    """Opens the ends of a worker's links. One thread uses it.

    worker  name of the worker in the plan
    run     name of the run in shared memory
    """

    def __init__(self, worker: str, plan: GraphPlan, config: GraphConfig, run: str) -> None:
        self._worker, self._plan, self._config, self._run = worker, plan, config, run
        self._here = {node.name for node in plan.nodes if node.worker == worker}
        self._memory: RunFolder | None = None
        self._epoch = contextlib.ExitStack()

    def open(self, epoch: int) -> LinkEnds:
        """Open the ends for an epoch, after `let_go` of the last one."""
        # Note: a context for each epoch. ZeroMQ closes sockets in the background. Only the end of their context shows
        # that an endpoint is free; a later close would unlink the next epoch's ipc socket.
        return self._open(self._plan.links, epoch, self._epoch)

    def let_go(self) -> None:
        """Free the epoch's endpoints. Call it after its ends are closed; it returns when every endpoint is free."""
        self._epoch.close()

    def open_bypass(self, name: str, number: int, undo: contextlib.ExitStack) -> tuple[LinkPlan, LinkEnds]:
        """Open the ends of a bypass, for the `number`th time. `undo` frees the endpoint, after the ends are closed."""
        (link,) = (link for link in self._plan.bypasses if link.name == name)
        return link, self._open([link], number, undo)

    def close(self) -> None:
        """Remove this process's folder in shared memory."""
        if self._memory is not None:
            self._memory.close()

    def _open(self, links: Sequence[LinkPlan], epoch: int, undo: contextlib.ExitStack) -> LinkEnds:
        config, here = self._config, self._here
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        undo.callback(context.term)
        context.set(zmq.MAX_SOCKETS, 4096)
        inlets: dict[str, Inlet] = {}
        outlets: dict[str, Outlet] = {}
        far = [link for link in links if link.transport == "inline"]
        keys = keys_for(config) if far else None
        if keys is not None and any(link.sender in here for link in far):
            undo.enter_context(admission(context, keys))
        for link in links:
            sends, reads = link.sender in here, link.receiver in here
            if sends and reads:
                outlets[link.name], inlets[link.name] = open_local(context, link, epoch)
            elif sends:
                folder = self._folder() if link.transport == "shm" else None
                outlets[link.name] = open_outlet(context, link, epoch, folder=folder, device=config.device, keys=keys)
            elif reads:
                inlets[link.name] = open_inlet(context, link, epoch, device=config.device, keys=keys)
        return inlets, outlets

    def _folder(self) -> RunFolder:
        """This process's folder in shared memory, made on first use."""
        self._memory = self._memory or RunFolder(f"{self._run}-{self._worker}")
        return self._memory
