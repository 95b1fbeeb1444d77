"""The workers of a run: who there is, and how each of their lives begins and ends."""

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
from warpfuse.graph.processes.channel import Line, words
from warpfuse.graph.processes.launcher import ByHand, Launcher, LocalProcesses
from warpfuse.graph.processes.source_probe import Scout
from warpfuse.graph.processes.worker_handle import Member, home_of
from warpfuse.graph.runtime.remote_hosts import far_workers, keys_for, line_to
from warpfuse.stages.errors import StreamLost
from warpfuse.stages.sources.schemes import scheme_of

STARTUP_S = 900.0  # engines are built and loaded; liveness is the line's business


class Roster:
    """Starts workers, hears them, ends them. One thread uses it; whoever made it closes it.

    folder   of the run, 0700: sockets lie there
    scout    a worker that is connected to the source already; it is taken over
    live     the source cannot wait
    here     workers that are no processes, by name, and who starts them
    context  of the lines, and of whatever else the supervisor listens to
    """

    def __init__(
        self,
        plan: GraphPlan,
        config: GraphConfig,
        folder: Path,
        scout: Scout | None,
        *,
        live: bool,
        say: Callable[[str], None],
        here: Mapping[str, Launcher] | None = None,
    ) -> None:
        self._plan, self._config, self._folder, self._live, self._say = plan, config, folder, live, say
        self._keys = Keys(Path(config.keys)) if config.keys else None
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context() if scout is None else scout.context
        self._admission = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            if scout is None:
                undo.callback(self.context.term)
            undo.callback(self._admission.close)
            if config.listen:
                self._admission.enter_context(admission(self.context, keys_for(config)))
            self.processes = LocalProcesses(folder) if scout is None else scout.processes
            self.processes.loops = config.device == "cpu"
            undo.pop_all()
        self._first_lines: dict[str, Line] = {}
        if scout is not None:
            self._first_lines[scout.worker] = scout.line
            scout.let_go()
        far = far_workers(config)
        self._here = dict(here or {})
        self.members = [self._member(name, name in far) for name in workers_of(plan)]

    def start(self, member: Member) -> bool:
        """Begin a life of a worker. True: it has said HELLO before, to the scout."""
        member.life += 1
        member.state, member.due_s = "starting", time.monotonic() + STARTUP_S
        if (line := self._first_lines.pop(member.name, None)) is not None:
            member.line = line
            return True
        if isinstance(member.launcher, ByHand):
            member.line = Line(self.context, line_to(self._config, member.name), self._keys)
            self._say(f"waiting for worker {member.name}; there: warpfuse worker GRAPH.yaml {member.name}")
        else:
            member.line = Line(self.context, f"ipc://{self._folder}/line-{member.name}-{member.life}")
        member.launcher.start(member.name, member.line.endpoint)
        return False

    def lose(self, member: Member, why: str, *, started: bool = False) -> WarpfuseError | None:
        """A life is over, and what is left of it is ended: the worker is due to be started again after a while.

        started  somebody has done that already
        Returns what the run has to end with if it has died too often.
        """
        delay = member.restarts.after(time.monotonic())
        if delay is None:
            outer = all(node.role != "stage" for node in self._plan.nodes if node.name in member.nodes)
            text = f"worker {member.name} was lost too often, 6 times within a minute; last: it {why}"
            return StreamLost(text) if outer else StageFailed(member.name, Elsewhere(text))
        self._say(f"worker {member.name} {why}; it is started again")
        # A file that was not finished is gone with its process, and is written again from its beginning; of a live
        # source the part stays, and another file is begun.
        files = {node.name for node in self._plan.nodes if node.role == "sink" and scheme_of(node.about) == "file"}
        member.begins_anew(files, kept=self._live)
        if started:
            member.state, member.due_s = "starting", time.monotonic() + STARTUP_S
        else:
            member.launcher.kill(member.name)
            self._hang_up(member)
            member.state, member.due_s = "down", time.monotonic() + delay
        return None

    def register(self, poller: zmq.Poller) -> None:
        """Have the poller wake when there is something in `heard` or `exited`."""
        for member in self.members:
            if member.line is not None:
                poller.register(member.line.socket, zmq.POLLIN)
                poller.register(member.line.monitor, zmq.POLLIN)
        poller.register(self.processes.fd, zmq.POLLIN)

    def heard(self) -> Iterator[tuple[Member, protocol.Word]]:
        """What workers have said."""
        for member in self.members:
            line = member.line
            if line is None:
                continue
            line.watch(time.monotonic_ns())
            for word in words(line, member.name):
                member.beat_s = time.monotonic()
                yield member, word
                if member.line is not line:
                    break  # what it said cost it its life, and the line is closed

    def exited(self) -> Iterator[tuple[Member, int]]:
        """Workers whose process has ended, and its exit code; below 0: by that signal."""
        for name, code in self.processes.exited():
            sweep()  # its shared memory: nobody else can remove it
            yield next(member for member in self.members if member.name == name), code

    def home_of(self, node: str) -> Member:
        """The worker that runs a stage."""
        return home_of(self.members, node)

    def tell_all(self, order: protocol.Order) -> None:
        """Tell every worker something."""
        for member in self.members:
            member.send(order)

    def reports(self) -> list[Report]:
        """The figures of every worker that has told any, over all its lives."""
        return [report for member in self.members if (report := member.report) is not None]

    def close(self) -> None:
        """End every process and close the lines."""
        for member in self.members:
            self._hang_up(member)
        while self._first_lines:
            self._first_lines.popitem()[1].close()
        self.processes.close()
        for launcher in self._here.values():
            launcher.close()
        self._admission.close()
        self.context.term()

    def _member(self, name: str, far: bool) -> Member:
        nodes = tuple(node.name for node in self._plan.nodes if node.worker == name)
        return Member(name, nodes, self._here.get(name) or (ByHand() if far else self.processes))

    def _hang_up(self, member: Member) -> None:
        if member.line is not None:
            member.line.close()
            member.line = None
