"""The ends of links that are in one worker, for an epoch at a time."""

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
"""Those that are here, by the link's name. Whoever got them closes them."""


class Wiring:
    """Opens them. One thread uses it.

    worker  its name in the plan
    run     name of the run in shared memory
    """

    def __init__(self, worker: str, plan: GraphPlan, config: GraphConfig, run: str) -> None:
        self._worker, self._plan, self._config, self._run = worker, plan, config, run
        self._here = {node.name for node in plan.nodes if node.worker == worker}
        self._memory: RunFolder | None = None
        self._epoch = contextlib.ExitStack()

    def open(self, epoch: int) -> LinkEnds:
        """The ends of an epoch; the one before has been let go."""
        # Note: a context for each epoch. Sockets are closed behind one's back; only the end of their context says that
        # an endpoint is free, and a late close would take the next epoch's ipc socket with it.
        return self._open(self._plan.links, epoch, self._epoch)

    def let_go(self) -> None:
        """The epoch is over and its ends are closed: returns when every endpoint is free."""
        self._epoch.close()

    def open_bypass(self, name: str, number: int, undo: contextlib.ExitStack) -> tuple[LinkPlan, LinkEnds]:
        """The ends of a bypass, for the `number`th time. `undo` frees the endpoint, after they are closed."""
        (link,) = (link for link in self._plan.bypasses if link.name == name)
        return link, self._open([link], number, undo)

    def close(self) -> None:
        """Give the shared memory back."""
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
        """This process's in shared memory, made when it is needed."""
        self._memory = self._memory or RunFolder(f"{self._run}-{self._worker}")
        return self._memory
