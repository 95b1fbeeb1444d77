"""Runs a graph as several processes: starts them, keeps them in step, starts again what dies.

All of a run's links belong to one epoch. Whatever goes wrong in it (a process that dies or hangs, a stage that raises)
ends it for all: the survivors close their links and keep their stages open, what died is started again, and when all
are ready the next epoch begins where the last one broke off. A file goes on at the first frame some sink lacks, a live
source with what comes next.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph import orders
from warpfuse.graph.build import Materials
from warpfuse.graph.bypassing import Bypassing
from warpfuse.graph.clocks import Trip, offset
from warpfuse.graph.control import Control
from warpfuse.graph.cores import next_core
from warpfuse.graph.curve import Keys, admission
from warpfuse.graph.errors import ConfigError, Elsewhere, StageFailed
from warpfuse.graph.far_hosts import keys_for, line_to
from warpfuse.graph.faults import Streak
from warpfuse.graph.foreign import ENDS_THE_RUN, error_of
from warpfuse.graph.launcher import ByHand, LocalProcesses
from warpfuse.graph.line import Line, words
from warpfuse.graph.live_settings import LiveSettings
from warpfuse.graph.member import Member, home_of
from warpfuse.graph.meters import Stats
from warpfuse.graph.origin import Origin
from warpfuse.graph.placement import Place, workers_of
from warpfuse.graph.plan import GraphPlan
from warpfuse.graph.report import Report, stats_of
from warpfuse.graph.resuming import resume_after
from warpfuse.graph.shared_memory import sweep
from warpfuse.graph.stalls import Stalls
from warpfuse.graph.switchboard import Switchboard
from warpfuse.graph.trace import Span
from warpfuse.stages.errors import StreamLost
from warpfuse.stages.sources.schemes import scheme_of

_LOG = logging.getLogger("warpfuse")
_TICK_MS = 50
_STARTUP_S = 900.0  # engines are built and loaded; liveness is the line's business
_HELLO_S = 10.0  # from the fork to the first word, which needs nothing but a core
_LET_GO_S = 2.0
_GOODBYE_S = 15.0  # sinks finish their files


class Supervisor:
    """One thread. `run` returns the figures, or raises what ended the run.

    folder   of the run, 0700: sockets lie there
    endpoint of the control socket; empty: nobody may ask
    trace    keep the calls of every stage
    origin   of the run; a worker that is connected to it already is taken over
    """

    def __init__(
        self,
        materials: Materials,
        plan: GraphPlan,
        origin: Origin,
        folder: Path,
        settings: LiveSettings,
        *,
        stop: threading.Event,
        say: Callable[[str], None],
        endpoint: str = "",
        trace: bool = False,
    ) -> None:
        config = materials.config
        self._materials, self._plan, self._info, self._folder = materials, plan, origin.info, folder
        scout = origin.scout
        self._config = config
        self._stop, self._say, self._trace = stop, say, trace
        self._core = next_core(config.device)
        self._live = origin.info.live or config.realtime
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context() if scout is None else scout.context
        self._keys = Keys(Path(config.keys)) if config.keys else None
        with contextlib.ExitStack() as undo:
            undo.callback(self._context.destroy, 0)
            control = Control(self._context, endpoint) if endpoint else None
            self._admission = contextlib.ExitStack()
            if config.listen:
                self._admission.enter_context(admission(self._context, keys_for(config)))
            self._processes = LocalProcesses(folder) if scout is None else scout.processes
            undo.pop_all()
        self._first_lines: dict[str, Line] = {}
        if scout is not None:
            self._first_lines[scout.worker] = scout.line
            scout.let_go()
        self._epoch = 0
        self._streak = Streak()
        self._bypassing = Bypassing(plan.bypasses)
        self._stalls = Stalls({link.name: link.receiver for link in plan.links})
        self._without: set[int] = set()
        self._lost: list[str] = []
        self._error: WarpfuseError | None = None
        self._stopping = False
        self.members = [self._member(name) for name in workers_of(plan)]
        self._switchboard = Switchboard(control, self.members, settings, stats=self.stats, stop=stop)

    def run(self, progress: Callable[[int], None] = lambda frames: None) -> Stats:
        """From the start of every worker to the end of the last."""
        try:
            for member in self.members:
                self._start(member)
            while self._error is None and not self._over():
                self._turn()
                self._check()
                progress(self._shown())
            self._dismiss()
        finally:
            self.close()
        if self._error is not None:
            raise self._error
        return self.stats()

    def close(self) -> None:
        """End every process and close the lines."""
        for member in self.members:
            if member.line is not None:
                member.line.close()
                member.line = None
        self._processes.close()
        self._admission.close()
        self._switchboard.close()
        self._context.term()

    def stats(self) -> Stats:
        """The figures so far."""
        restarts = sum(member.restarts.total for member in self.members)
        stats = stats_of(
            self._reports(), self._materials, failed=len(self._without), restarts=restarts, warnings=tuple(self._lost)
        )
        return stats.stopped(self._stop.is_set())

    def tracks(self) -> dict[str, list[Span]]:
        """The calls of every worker's stages, after the end."""
        return {member.name: [Span(*span) for span in member.spans] for member in self.members}

    # What arrives

    def _turn(self) -> None:
        poller = zmq.Poller()
        for member in self.members:
            if member.line is not None:
                poller.register(member.line.socket, zmq.POLLIN)
                poller.register(member.line.monitor, zmq.POLLIN)
        poller.register(self._processes.fd, zmq.POLLIN)
        if self._switchboard.control is not None:
            poller.register(self._switchboard.control.socket, zmq.POLLIN)
        poller.poll(_TICK_MS)
        for member in self.members:
            line = member.line
            if line is None:
                continue
            line.watch(time.monotonic_ns())
            for word in words(line, member.name):
                member.beat_s = time.monotonic()
                self._heard(member, word)
                if member.line is not line:
                    break  # what it said cost it its life, and the line is closed
        for name, code in self._processes.exited():
            self._exited(next(member for member in self.members if member.name == name), code)
        self._switchboard.serve()

    def _heard(self, member: Member, word: orders.Word) -> None:
        match word:
            case orders.Hello():
                self._greet(member, word)
            case orders.Ready():
                member.state = "ready"
            case orders.Said():
                self._say(word.line)
            case orders.Refused():
                self._error = error_of(word.kind, word.stage, word.text)
            case orders.Beat():
                member.told(word.report)
            case orders.Quiet():
                member.told(word.report)
                if word.stuck and member.state == "quieting":
                    self._died(member, f"stage {', '.join(word.stuck)} does not return")
                elif member.state == "quieting":
                    member.state = "ready"
            case orders.Faulted():
                self._faulted(word)
            case orders.Begun() | orders.Picture():
                self._switchboard.heard(word)
            case orders.Pong():
                member.trips.append(Trip(word.t0, word.t1, word.t2, time.monotonic_ns()))
                if len(member.trips) == 8:
                    member.send(orders.SetClock(offset(member.trips)[0]))
            case orders.Gone():
                member.told(word.report)
                member.spans += word.spans
                member.state = "gone"

    def _greet(self, member: Member, hello: orders.Hello) -> None:
        if hello.version != orders.VERSION:
            text = f"worker {member.name} speaks version {hello.version}, this is {orders.VERSION}"
            self._error = ConfigError(f"{text}. Run the same warpfuse on every host")
            return
        again, member.pid = member.pid == hello.pid, hello.pid
        if again and member.state in ("ready", "running", "quieting"):
            self._reunite(member)
            return
        if member.state != "starting":  # somebody started it again by hand
            self._died(member, "was started again", started=True)
        if isinstance(member.launcher, ByHand):
            member.trips.clear()
            for _ in range(8):
                member.send(orders.Ping(time.monotonic_ns()))
        self._assign(member)

    def _assign(self, member: Member) -> None:
        member.send(
            orders.Assign(
                member.name,
                self._switchboard.keys,
                self._switchboard.version,
                orders.info_of(self._info),
                self._materials.size,
                self._materials.engines.backend,
                str(self._folder),
                self._folder.name,
                self._trace,
                None if isinstance(member.launcher, ByHand) else self._core,
            ),
        )

    def _reunite(self, member: Member) -> None:
        """Its line broke for a moment, and nobody knows what was lost on it: a new epoch, and the newest settings."""
        self._say(f"worker {member.name} was out of reach for a moment")
        if self._switchboard.version:
            self._switchboard.publish_to(member)
        member.state = "quieting"
        member.send(orders.LetGo(_LET_GO_S))
        self._break_off()

    def _faulted(self, fault: orders.Faulted) -> None:
        if fault.epoch != self._epoch:
            return
        _LOG.info("stage %s at frame %d:\n%s", fault.stage, fault.seq, fault.trace)
        fatal = fault.kind in ENDS_THE_RUN or (fault.kind == "failed" and fault.seq < 0)
        if fatal or self._streak.ends_the_run(fault.stage, fault.seq, fault.passed):
            _LOG.error("stage %s ended the run:\n%s", fault.stage, fault.trace)
            self._error = error_of(fault.kind, fault.stage, fault.text)
            return
        if fault.kind == "cut":  # what was on its way is sent again, or lost with the epoch
            self._say(f"{fault.text}; it is opened again")
        else:
            self._without.add(fault.seq)
            self._lost.append(f"frame {fault.seq} was dropped: stage {fault.stage}: {fault.text}")
        self._break_off()

    # What is done about it

    def _check(self) -> None:
        now, now_ns = time.monotonic(), time.monotonic_ns()
        for member in self.members:
            if member.line is not None and member.line.dead(now_ns):
                self._died(member, "has stopped answering")
            elif member.state == "running" and (stage := member.hanging(self._config.stage_deadline_s, now)):
                self._died(member, f"stage {stage} has not returned for {self._config.stage_deadline_s:g} s")
            elif member.state == "starting" and _mute(member) and member.launcher.age_s(member.name) > _HELLO_S:
                self._died(member, f"has not said a word in {_HELLO_S:g} s")
            elif member.state == "down" and now >= member.due_s:
                self._start(member)
            elif member.state == "starting" and now > member.due_s:
                self._error = StageFailed(member.name, Elsewhere(f"not ready within {_STARTUP_S:g} s"))
        self._check_links(now)
        if self._stop.is_set() and not self._stopping:
            self._stopping = True
            self._tell_all(orders.Stop())
        self._bypassing.tend(self._home_of)
        if all(member.state == "ready" for member in self.members):
            self._connect()

    def _check_links(self, now_s: float) -> None:
        """Look for a reader that keeps what it is given: its worker is started again, as that of one that hangs."""
        told = [member.life_report for member in self.members if member.state == "running"]
        standing = self._stalls.longest([report for report in told if report is not None], now_s)
        if standing is not None and standing[1] > self._config.stage_deadline_s:
            reader = self._stalls.readers[standing[0]]
            why = f"stage {reader} has given nothing back by link {standing[0]} for {standing[1]:.0f} s"
            self._died(self._home_of(reader), why)

    def _connect(self) -> None:
        """Begin the next epoch."""
        self._stalls.forget()
        at = resume_after(
            self._reports(),
            frozenset(self._without),
            rewind=not self._live,
            sinks=[node.name for node in self._plan.nodes if node.role == "sink"],
            first=self._epoch == 0,
        )
        self._epoch += 1
        for member in self.members:
            member.state, member.beat_s = "running", time.monotonic()
            if self._switchboard.paused:
                member.send(orders.Pause(True))
            if self._stopping:
                member.send(orders.Stop())
            member.send(orders.Connect(self._epoch, at.first, sorted(at.without), at.since_ns, at.done))

    def _break_off(self) -> None:
        """End the epoch for all who are in it."""
        for member in self.members:
            if member.state == "running":
                member.state = "quieting"
                member.send(orders.LetGo(_LET_GO_S))

    def _died(self, member: Member, why: str, *, started: bool = False) -> None:
        """A worker is lost: end what is left of it, and start it again after a while."""
        if member.state in ("down", "gone") or self._error is not None:
            return
        delay = member.restarts.after(time.monotonic())
        if delay is None:
            outer = all(node.role != "stage" for node in self._plan.nodes if node.name in member.nodes)
            text = f"worker {member.name} was lost too often, 6 times within a minute; last: it {why}"
            self._error = StreamLost(text) if outer else StageFailed(member.name, Elsewhere(text))
            return
        self._say(f"worker {member.name} {why}; it is started again")
        # A file that was not finished is gone with its process, and is written again from its beginning; of a live
        # source the part stays, and another file is begun.
        files = {node.name for node in self._plan.nodes if node.role == "sink" and scheme_of(node.about) == "file"}
        member.begins_anew(files, kept=self._live)
        if started:
            member.state, member.due_s = "starting", time.monotonic() + _STARTUP_S
        else:
            member.launcher.kill(member.name)
            if member.line is not None:
                member.line.close()
                member.line = None
            member.state, member.due_s = "down", time.monotonic() + delay
        self._break_off()

    def _exited(self, member: Member, code: int) -> None:
        sweep()  # its shared memory: nobody else can remove it
        if member.state in ("starting", "ready", "running", "quieting"):
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            self._died(member, how)

    def _start(self, member: Member) -> None:
        member.life += 1
        if (line := self._first_lines.pop(member.name, None)) is not None:
            member.line, member.state, member.due_s = line, "starting", time.monotonic() + _STARTUP_S
            self._assign(member)
            return
        if isinstance(member.launcher, ByHand):
            member.line = Line(self._context, line_to(self._config, member.name), self._keys)
            self._say(f"waiting for worker {member.name}; there: warpfuse worker GRAPH.yaml {member.name}")
        else:
            member.line = Line(self._context, f"ipc://{self._folder}/line-{member.name}-{member.life}")
        member.state, member.due_s = "starting", time.monotonic() + _STARTUP_S
        member.launcher.start(member.name, member.line.endpoint)

    def _over(self) -> bool:
        return bool(self._epoch) and all(m.state == "running" and m.ended for m in self.members)

    def _dismiss(self) -> None:
        """Have every worker close, and hear its last words."""
        self._tell_all(orders.Exit())
        until = time.monotonic() + (_GOODBYE_S if self._error is None else _LET_GO_S + 3)
        alive = ("starting", "ready", "running", "quieting")
        while any(m.state in alive and m.line is not None for m in self.members) and time.monotonic() < until:
            error = self._error
            with contextlib.suppress(StageFailed):
                self._turn_down()
            self._error = error

    def _turn_down(self) -> None:
        """As `_turn`, when nothing is started again."""
        for member in self.members:
            if member.line is not None:
                for word in words(member.line, member.name):
                    if isinstance(word, orders.Gone):
                        self._heard(member, word)
        for name, _ in self._processes.exited():
            member = next(m for m in self.members if m.name == name)
            member.state = "gone" if member.state != "gone" else member.state
        time.sleep(0.005)

    # Small things

    def _member(self, name: str) -> Member:
        nodes = tuple(node.name for node in self._plan.nodes if node.worker == name)
        place = self._config.workers.get(name) if isinstance(self._config.workers, dict) else None
        far = isinstance(place, Place) and bool(place.host)
        return Member(name, nodes, ByHand() if far else self._processes)

    def _home_of(self, node: str) -> Member:
        return home_of(self.members, node)

    def _tell_all(self, order: orders.Order) -> None:
        for member in self.members:
            member.send(order)

    def _reports(self) -> list[Report]:
        return [report for member in self.members if (report := member.report) is not None]

    def _shown(self) -> int:
        return self._home_of("sink_1").written("sink_1")


def _mute(member: Member) -> bool:
    return member.line is not None and member.line.peer is None
