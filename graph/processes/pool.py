"""The pool of a run's workers: it starts them, receives their events and ends them."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import zmq

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import Elsewhere, StageFailed
from warpfuse.graph.links.curve import Keys, admission
from warpfuse.graph.links.shared_memory import sweep
from warpfuse.graph.metrics.report import Report
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.plan.placement import workers_of
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.channel import Channel, events
from warpfuse.graph.processes.launcher import ByHand, Launcher, LocalProcesses
from warpfuse.graph.processes.source_probe import SourceProbe
from warpfuse.graph.processes.worker_handle import WorkerHandle, home_of
from warpfuse.graph.runtime.remote_hosts import far_workers, keys_for, line_to
from warpfuse.stages.errors import StreamLost
from warpfuse.stages.sources.schemes import scheme_of

STARTUP_S = 900.0  # longest time until a worker is ready: it may build engines. A dead one is noticed by its channel


class WorkerPool:
    """Starts workers, receives their events, ends them. One thread uses it; the creator closes it.

    folder   the run's folder, mode 0700, with the sockets
    probe    a worker that is connected to the source already; the pool takes it over
    live     the source cannot wait
    here     launchers of workers in this process, by the worker's name
    context  ZeroMQ context of the channels and of the supervisor's other sockets
    """

    def __init__(
        self,
        plan: GraphPlan,
        config: GraphConfig,
        folder: Path,
        probe: SourceProbe | None,
        *,
        live: bool,
        say: Callable[[str], None],
        here: Mapping[str, Launcher] | None = None,
    ) -> None:
        self._plan, self._config, self._folder, self._live, self._say = plan, config, folder, live, say
        self._keys = Keys(Path(config.keys)) if config.keys else None
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context() if probe is None else probe.context
        self._admission = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            if probe is None:
                undo.callback(self.context.term)
            undo.callback(self._admission.close)
            if config.listen:
                self._admission.enter_context(admission(self.context, keys_for(config)))
            self.processes = LocalProcesses(folder) if probe is None else probe.processes
            self.processes.loops = config.loops_on_host
            undo.pop_all()
        self._first_channels: dict[str, Channel] = {}
        if probe is not None:
            self._first_channels[probe.worker] = probe.channel
            probe.let_go()
        far = far_workers(config)
        self._here = dict(here or {})
        self.handles = [self._handle(name, name in far) for name in workers_of(plan)]

    def start(self, handle: WorkerHandle) -> bool:
        """Start a worker, or start it again. True: it runs already and has said HELLO to the probe."""
        handle.life += 1
        handle.state, handle.due_s = "starting", time.monotonic() + STARTUP_S
        if (channel := self._first_channels.pop(handle.name, None)) is not None:
            handle.channel = channel
            return True
        if isinstance(handle.launcher, ByHand):
            handle.channel = Channel(self.context, line_to(self._config, handle.name), self._keys)
            self._say(f"waiting for worker {handle.name}; there: warpfuse worker GRAPH.yaml {handle.name}")
        else:
            handle.channel = Channel(self.context, f"ipc://{self._folder}/line-{handle.name}-{handle.life}")
        handle.launcher.start(handle.name, handle.channel.endpoint)
        return False

    def lose(self, handle: WorkerHandle, why: str, *, started: bool = False) -> WarpfuseError | None:
        """Give up a worker's process: end it, and schedule the worker's next start.

        why      what happened, for the user: continues "worker NAME"
        started  the worker has been started again by hand already

        Returns an error that ends the run if the worker was lost too often.
        """
        delay = handle.restarts.after(time.monotonic())
        if delay is None:
            outer = all(node.role != "stage" for node in self._plan.nodes if node.name in handle.nodes)
            text = f"worker {handle.name} was lost too often, 6 times within a minute; last: it {why}"
            return StreamLost(text) if outer else StageFailed(handle.name, Elsewhere(text))
        self._say(f"worker {handle.name} {why}; it is started again")
        # An unfinished output file is lost with its process and written again from its beginning. With a live source
        # the unfinished file is kept, and another file is begun.
        files = {node.name for node in self._plan.nodes if node.role == "sink" and scheme_of(node.about) == "file"}
        handle.begins_anew(files, kept=self._live)
        if started:
            handle.state, handle.due_s = "starting", time.monotonic() + STARTUP_S
        else:
            handle.launcher.kill(handle.name)
            self._hang_up(handle)
            handle.state, handle.due_s = "down", time.monotonic() + delay
        return None

    def register(self, poller: zmq.Poller) -> None:
        """Register the descriptors that are readable when `heard` or `exited` has something to yield."""
        for handle in self.handles:
            if handle.channel is not None:
                poller.register(handle.channel.socket, zmq.POLLIN)
                poller.register(handle.channel.monitor, zmq.POLLIN)
        poller.register(self.processes.fd, zmq.POLLIN)

    def heard(self) -> Iterator[tuple[WorkerHandle, protocol.Event]]:
        """Yield the events that have arrived from workers."""
        for handle in self.handles:
            channel = handle.channel
            if channel is None:
                continue
            channel.watch(time.monotonic_ns())
            for event in events(channel, handle.name):
                handle.beat_s = time.monotonic()
                yield handle, event
                if handle.channel is not channel:
                    break  # because of this event the worker was given up, and its channel is closed

    def exited(self) -> Iterator[tuple[WorkerHandle, int]]:
        """Yield the workers whose processes have ended, with exit codes; -N: by signal N."""
        for name, code in self.processes.exited():
            sweep()  # the dead process could not remove its shared memory
            yield next(handle for handle in self.handles if handle.name == name), code

    def home_of(self, node: str) -> WorkerHandle:
        """The worker that runs a stage."""
        return home_of(self.handles, node)

    def tell_all(self, command: protocol.Command) -> None:
        """Send a command to every worker."""
        for handle in self.handles:
            handle.send(command)

    def reports(self) -> list[Report]:
        """The figures of every worker that has sent any, summed over its restarts."""
        return [report for handle in self.handles if (report := handle.report) is not None]

    def close(self) -> None:
        """End every process and close the channels."""
        for handle in self.handles:
            self._hang_up(handle)
        while self._first_channels:
            self._first_channels.popitem()[1].close()
        self.processes.close()
        for launcher in self._here.values():
            launcher.close()
        self._admission.close()
        self.context.term()

    def _handle(self, name: str, far: bool) -> WorkerHandle:
        nodes = tuple(node.name for node in self._plan.nodes if node.worker == name)
        return WorkerHandle(name, nodes, self._here.get(name) or (ByHand() if far else self.processes))

    def _hang_up(self, handle: WorkerHandle) -> None:
        if handle.channel is not None:
            handle.channel.close()
            handle.channel = None
