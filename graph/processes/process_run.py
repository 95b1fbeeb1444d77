"""The supervisor of a run in several processes. It starts workers, keeps them in the same epoch and restarts dead ones.

Any failure (a process dies or hangs, a stage raises) ends the epoch of all links. The surviving workers close their
links and keep their stages open, and a dead worker is started again. When all are ready, the next epoch resumes where
the last one broke off.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from msgspec import structs

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.control.messages import Applied
from warpfuse.graph.control.run import Progress, Run
from warpfuse.graph.errors import ConfigError, Elsewhere, StageFailed
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.report import stats_of
from warpfuse.graph.metrics.trace import Span
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.graph_plan import GraphPlan
from warpfuse.graph.plan.live_settings import LiveSettings
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.bypassing import BypassOpener
from warpfuse.graph.processes.epochs import LET_GO_S, Epochs
from warpfuse.graph.processes.event_queue import EventQueue
from warpfuse.graph.processes.health import StarvedLinks
from warpfuse.graph.processes.launcher import ByHand, Launcher
from warpfuse.graph.processes.pool import STARTUP_S, WorkerPool
from warpfuse.graph.processes.remote_errors import error_of
from warpfuse.graph.processes.resolved_source import ResolvedSource
from warpfuse.graph.processes.video_message import Info
from warpfuse.graph.processes.worker_handle import WorkerHandle
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.endpoints import frames_expected
from warpfuse.graph.runtime.thread_run import concluded
from warpfuse.stages.hooks.hooks_file import settings_hook

_ANSWER_S = 60.0  # longest time for an answer: a worker that is being started again answers only when it is ready
_TICK_MS = 50
_HELLO_S = 10.0  # longest time from the fork to HELLO, which takes nothing but CPU time
_GOODBYE_S = 15.0  # longest time for a worker to close, since sinks finish their files then


class _Asked:
    """A caller that waits for an event of this kind from a worker."""

    def __init__(self, kind: type[protocol.Event]) -> None:
        self.kind = kind
        self.answer: Future[Any] = Future()


class ProcessRun:
    """A `Run` in processes. The thread of `wait` talks to the workers; other threads put requests into its queue.

    resolved  the run's source; a worker that is connected to it already is taken over
    folder    the run's folder, mode 0700, with the sockets
    keys      the configuration's keys as the user gave them; None: all keys of the context's configuration
    here      launchers of workers in this process, by the worker's name
    temporal  as for plan_graph, which made the plan
    trace     record the calls of every stage
    """

    def __init__(
        self,
        context: RunContext,
        plan: GraphPlan,
        resolved: ResolvedSource,
        folder: Path,
        *,
        keys: Mapping[str, Any] | None = None,
        here: Mapping[str, Launcher] | None = None,
        temporal: bool | None = None,
        trace: bool = False,
    ) -> None:
        config = context.config
        live = resolved.info.live or config.paced
        given = dict(keys) if keys is not None else config.model_dump(mode="json")
        settled = config if keys is None else validate(given)
        self._context, self._stop, self._say = context, context.stop, context.say
        self._deadline_s = config.stage_deadline_s
        self._expected = frames_expected(resolved.info, config)
        about = context.bundle.about
        self._settings = LiveSettings(
            given, settled, plan, context.calls, context.prompts, live, about.attention is not None, about.splits
        )
        self._hook = settings_hook(config.hooks, context.say)
        self._version = 0
        self._paused = self._over = False
        self._part = protocol.Assign(
            "", {}, 0, Info.of(resolved.info), context.size, context.engines.backend, context.bundle.precision,
            str(folder), folder.name, trace, temporal,
        )  # fmt: skip
        self._pool = WorkerPool(plan, config, folder, resolved.probe, live=live, say=self._say, here=here)
        self._requests: EventQueue[Callable[[], None]] = EventQueue()
        self._asked: list[_Asked] = []
        self._asking = threading.Lock()
        sinks = [node.name for node in plan.nodes if node.role == "sink"]
        self._epochs = Epochs(self._pool, sinks, rewind=not live, say=self._say)
        self._bypassing = BypassOpener(plan.bypasses)
        self._starved = StarvedLinks(
            {link.name: link.receiver for link in plan.links}, {node.name: node.lane for node in plan.nodes}
        )
        self._news = False
        self._error: WarpfuseError | None = None
        self._stopping = False

    @property
    def streams(self) -> Mapping[str, Run]:
        """As `Run` says."""
        return {"": self}

    def start(self) -> None:
        """Start every worker."""
        for handle in self._pool.handles:
            self._start(handle)

    def wait(self, progress: Progress | None = None) -> Stats:
        """As `Run` says. It returns when the last worker has ended."""
        try:
            while self._error is None and not self._ended():
                self.turn()
                self._check()
                if progress is not None:
                    progress(self._shown(), self._expected)
            self._dismiss()
        finally:
            self.close()
        if self._error is not None:
            raise self._error
        return concluded(self.stats(), self._say)

    def close(self) -> None:
        """End every process and close the channels. Callers that wait for an answer get ConfigError.

        A second call does nothing.
        """
        with self._asking:
            if self._over:
                return
            self._over = True
        self._pool.close()
        for request in self._requests.taken():
            request()
        for asked in self._asked:
            asked.answer.set_exception(ConfigError("the run has ended"))
        self._requests.close()

    @property
    def paused(self) -> bool:
        """As `Run` says."""
        return self._paused

    def settings(self) -> dict[str, Any]:
        """As `Run` says."""
        return self._settings.config.model_dump(mode="json")

    def change(self, keys: Mapping[str, Any]) -> Applied:
        """As `Run` says. Every worker gets the new settings before the source stamps a frame with them."""
        publish = partial(self._publish, keys, time.monotonic_ns())
        begun: protocol.SettingsBegun = self._ask(protocol.SettingsBegun, publish)
        return Applied(begun.version, begun.seq)

    def snapshot(self) -> bytes:
        """As `Run` says."""
        picture: protocol.ShownPicture = self._ask(
            protocol.ShownPicture, lambda: self._pool.home_of("sink_1").send(protocol.Snap())
        )
        return picture.png

    def pause(self) -> None:
        """As `Run` says."""
        self._hold(True)

    def resume(self) -> None:
        """As `Run` says."""
        self._hold(False)

    def stop(self) -> None:
        """As `Run` says."""
        self._stop.set()

    def workers(self) -> dict[str, list[str]]:
        """As `Run` says."""
        return {handle.name: list(handle.nodes) for handle in self._pool.handles}

    def stats(self) -> Stats:
        """The figures so far."""
        lost, told = len(self._epochs.failed), tuple(self._epochs.told)
        restarts = sum(handle.restarts.total for handle in self._pool.handles)
        reports, setup, begun_ns = self._pool.reports(), self._context.setup, self._context.begun_ns
        stats = stats_of(reports, setup, failed=lost, restarts=restarts, warnings=told, begun_ns=begun_ns)
        return stats.stopped(self._stop.is_set())

    def spans(self) -> dict[str, list[Span]]:
        """As `Run` says. Empty before the end of the run."""
        return {handle.name: [Span(*span) for span in handle.spans] for handle in self._pool.handles}

    def _ask(self, kind: type[protocol.Event], do: Callable[[], None]) -> Any:
        """Have the thread of `wait` call `do`, and wait for a worker's event of this kind. Raises what `do` raises."""
        asked = _Asked(kind)

        def ask() -> None:
            if self._over:
                asked.answer.set_exception(ConfigError("the run has ended"))
                return
            try:
                do()
            except WarpfuseError as error:
                asked.answer.set_exception(error)
            else:
                self._asked.append(asked)

        self._leave(ask)
        try:
            return asked.answer.result(_ANSWER_S)
        except TimeoutError:
            raise ConfigError(f"no worker has answered within {_ANSWER_S:g} s") from None

    def _hold(self, paused: bool) -> None:
        self._paused = paused
        self._leave(lambda: None if self._over else self._pool.tell_all(protocol.PauseSource(paused)))

    def _leave(self, request: Callable[[], None]) -> None:
        """Queue a request for the thread of `wait`. Raises ConfigError after the end of the run."""
        with self._asking:
            if self._over:
                raise ConfigError("the run has ended")
            self._requests.put(request)

    def _publish(self, keys: Mapping[str, Any], asked_ns: int) -> None:
        """Send new settings to every worker, and then have the source begin with them.

        A worker that is down gets them when it is assigned its part again.
        """
        keys = self._hook(keys)
        change = self._settings.timed(keys)
        self._settings.changed(keys)
        self._version += 1
        how = change.over_ns, change.named, change.on_beat, asked_ns
        self._pool.tell_all(protocol.AddSettings(self._version, self._told(), *how))
        self._pool.home_of("source").send(protocol.BeginSettings(self._version))

    def _told(self) -> dict[str, Any]:
        """The newest settings in the form for workers: including the sink of a viewer, if there is one."""
        built = self._context.config.model_dump(mode="json", include={"sinks", "workers", "in_flight"})
        told = {**self.settings(), **built}
        return told if self._settings.config.schedule.cues else {**told, "looks": {}}  # they are its keys by now

    def _answered(self, event: protocol.SettingsBegun | protocol.ShownPicture) -> None:
        """Give a worker's answer to the caller that has waited for it the longest."""
        for asked in self._asked:
            if isinstance(event, asked.kind):
                self._asked.remove(asked)
                asked.answer.set_result(event)
                return

    def turn(self) -> None:
        """One round of `wait`: handle the workers' events and the requests. It takes at most a tick when idle."""
        poller = zmq.Poller()
        self._pool.register(poller)
        poller.register(self._requests.fd, zmq.POLLIN)
        poller.poll(_TICK_MS)
        for handle, event in self._pool.heard():
            self._heard(handle, event)
        for handle, code in self._pool.exited():
            if handle.alive:
                self._died(handle, f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")
        for request in self._requests.taken():
            request()

    def _heard(self, handle: WorkerHandle, event: protocol.Event) -> None:
        match event:
            case protocol.WorkerHello():
                self._greet(handle, event)
            case protocol.Ready():
                handle.state = "ready"
            case protocol.Said():
                self._say(event.line)
            case protocol.Refused():
                self._error = error_of(event.kind, event.stage, event.text)
            case protocol.Beat():
                handle.told(event.report)
                self._news = True
            case protocol.Quiet():
                handle.told(event.report)
                if event.stuck and handle.state == "quieting":
                    self._died(handle, f"stage {', '.join(event.stuck)} does not return")
                elif handle.state == "quieting":
                    handle.state = "ready"
            case protocol.Faulted():
                self._error = self._epochs.faulted(event) or self._error
            case protocol.SettingsBegun() | protocol.ShownPicture():
                self._answered(event)
            case protocol.Pong():
                handle.clock_told(event, time.monotonic_ns())
            case protocol.Goodbye():
                handle.told(event.report)
                handle.spans += event.spans
                handle.state = "gone"

    def _greet(self, handle: WorkerHandle, hello: protocol.WorkerHello) -> None:
        if hello.version != protocol.VERSION:
            text = f"worker {handle.name} speaks version {hello.version}, this is {protocol.VERSION}"
            self._error = ConfigError(f"{text}. Run the same warpfuse on every host")
            return
        again, handle.pid = handle.pid == hello.pid, hello.pid
        if again and handle.open:
            self._reunite(handle)
            return
        if handle.state != "starting":  # a user has started it again by hand
            self._died(handle, "was started again", started=True)
        if isinstance(handle.launcher, ByHand):
            handle.ask_its_clock()
        self._assign(handle)

    def _assign(self, handle: WorkerHandle) -> None:
        part = structs.replace(self._part, worker=handle.name, config=self._told())
        handle.send(structs.replace(part, version=self._version))

    def _reunite(self, handle: WorkerHandle) -> None:
        """Resume with a worker whose channel broke for a moment.

        Messages may have been lost, so it gets the newest settings again and a new epoch begins.
        """
        self._say(f"worker {handle.name} was out of reach for a moment")
        if self._version:
            handle.send(protocol.AddSettings(self._version, self._told()))
            if "source" in handle.nodes:
                handle.send(protocol.BeginSettings(self._version))
        handle.state = "quieting"
        handle.send(protocol.LetGo(LET_GO_S))
        self._epochs.break_off()

    def _check(self) -> None:
        now, now_ns = time.monotonic(), time.monotonic_ns()
        for handle in self._pool.handles:
            if why := handle.ailing(now, now_ns, stage_s=self._deadline_s, hello_s=_HELLO_S):
                self._died(handle, why)
            elif handle.state == "down" and now >= handle.due_s:
                self._start(handle)
            elif handle.state == "starting" and now > handle.due_s:
                self._error = StageFailed(handle.name, Elsewhere(f"not ready within {STARTUP_S:g} s"))
        if self._news:
            self._check_links(now)
        if self._stop.is_set() and not self._stopping:
            self._stopping = True
            self._pool.tell_all(protocol.StopSource())
        self._bypassing.tend(self._pool.home_of)
        if all(handle.state == "ready" for handle in self._pool.handles):
            self._starved.forget()
            paused: list[protocol.Command] = [protocol.PauseSource(True)] if self._paused else []
            self._epochs.begin([*paused, protocol.StopSource()] if self._stopping else paused)

    def _check_links(self, now_s: float) -> None:
        """Look for a stalled link. The worker of its reader is started again, like that of a stage that hangs."""
        self._news = False
        reports = [handle.life_report for handle in self._pool.handles if handle.state == "running"]
        stalled = self._starved.longest([report for report in reports if report is not None], now_s)
        if stalled is not None and stalled[1] > self._deadline_s:
            reader = self._starved.readers[stalled[0]]
            why = f"stage {reader} has given nothing back by link {stalled[0]} for {stalled[1]:.0f} s"
            self._died(self._pool.home_of(reader), why)

    def _died(self, handle: WorkerHandle, why: str, *, started: bool = False) -> None:
        """Handle the loss of a worker: end the epoch, or the run if the worker was lost too often."""
        if handle.state in ("down", "gone") or self._error is not None:
            return
        self._error = self._pool.lose(handle, why, started=started)
        if self._error is None:
            self._epochs.break_off()

    def _start(self, handle: WorkerHandle) -> None:
        if self._pool.start(handle):
            self._assign(handle)

    def _ended(self) -> bool:
        return bool(self._epochs.number) and all(m.state == "running" and m.ended for m in self._pool.handles)

    def _dismiss(self) -> None:
        """Have every worker close, and wait for their last figures. No worker is started again."""
        self._pool.tell_all(protocol.Exit())
        until = time.monotonic() + (_GOODBYE_S if self._error is None else LET_GO_S + 3)
        while any(m.alive and m.channel is not None for m in self._pool.handles) and time.monotonic() < until:
            for handle, event in self._pool.heard():
                if isinstance(event, protocol.Goodbye):
                    self._heard(handle, event)
            with contextlib.suppress(StageFailed):
                for handle, _ in self._pool.exited():
                    handle.state = "gone"
            time.sleep(0.005)

    def _shown(self) -> int:
        return self._pool.home_of("sink_1").written("sink_1")
