"""A worker process. It connects to the supervisor, gets its part of the graph and carries out commands."""

import contextlib
import importlib
import os
import threading
import time
import traceback

import zmq
from zmq.utils.monitor import recv_monitor_message

from warpfuse.engine.bundle import load_bundle
from warpfuse.graph.links.curve import Keys
from warpfuse.graph.metrics.trace import Track
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.crossfade import Timed
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.channel import open_channel
from warpfuse.graph.processes.event_queue import EventQueue
from warpfuse.graph.processes.remote_errors import kind_of, text_of
from warpfuse.graph.processes.video_message import Info
from warpfuse.graph.runtime.context import RunContext, compile_loops, open_prompts, usable_cores
from warpfuse.graph.runtime.endpoints import Endpoints, Viewer, endpoints_of, find_source, seen_by
from warpfuse.graph.runtime.engines import Engines
from warpfuse.graph.runtime.failures import Forwarded, StageFault
from warpfuse.graph.runtime.source_runner import ResumePoint
from warpfuse.graph.runtime.worker import Worker, snapshot
from warpfuse.stages.diffusion.prompts import WhenAsked
from warpfuse.stages.sources.live import LiveSource

BEAT_S = 0.25
FORSAKEN_S = 30.0
FAILED = 4
_TICK_MS = 60


def main(
    endpoint: str,
    name: str,
    keys: Keys | None = None,
    *,
    viewer: Viewer | None = None,
    ended: threading.Event | None = None,
) -> int:
    """Work as worker `name` of the run at the endpoint. Returns the exit code.

    keys    CURVE keys, for a channel between hosts
    viewer  the run's viewer, if this worker is a thread of the supervisor's process
    ended   set it to end the worker
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    process = WorkerProcess(context, endpoint, name, keys, viewer=viewer, ended=ended)
    try:
        return process.serve()
    finally:
        process.close()
        context.term()


def preload() -> None:
    """Import the modules that workers need for networks, sources and sinks, if they are installed."""
    for name in ("onnxruntime", "av", "warpfuse.stages.sources.file", "warpfuse.stages.sinks.file"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class WorkerProcess:
    """Serves the supervisor in one thread. The threads of the stages put events for the supervisor into a queue."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        name: str,
        keys: Keys | None = None,
        *,
        viewer: Viewer | None = None,
        ended: threading.Event | None = None,
    ) -> None:
        self._viewer = viewer
        self._ended = ended or threading.Event()
        self._name = name
        self._keys = keys
        self._channel = open_channel(context, endpoint, keys)
        self._monitor = self._channel.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._events: EventQueue[protocol.Event] = EventQueue()
        self._worker: Worker | None = None
        self._connected: LiveSource | None = None
        self._epoch = 0
        self._offset_ns = 0
        self._stopped = False
        self._end_sent = False
        self._alone_s: float | None = None

    def serve(self) -> int:
        """Carry out commands until Exit. Returns the exit code."""
        self._hello()
        poller = zmq.Poller()
        poller.register(self._channel, zmq.POLLIN)
        poller.register(self._events.fd, zmq.POLLIN)
        beat_at = 0.0
        while True:
            poller.poll(_TICK_MS)
            for event in self._events.taken():
                self._send(event)
            while int(self._channel.get(zmq.EVENTS)) & zmq.POLLIN:
                received_ns = self._clock()
                command = protocol.command(self._channel.recv())
                if isinstance(command, protocol.Exit):
                    self._leave()
                    return 0
                self._obey(command, received_ns)
            if self._forsaken() or self._ended.is_set():
                self._leave()
                return FAILED
            worker = self._worker
            if worker is not None:
                for line in worker.news():
                    self._send(protocol.Said(line))
                ended = bool(self._epoch) and worker.ended
                if time.monotonic() >= beat_at or (ended and not self._end_sent):
                    beat_at = time.monotonic() + BEAT_S
                    self._end_sent = ended
                    self._send(protocol.Beat(worker.report()))

    def _forsaken(self) -> bool:
        """A supervisor on another host has been unreachable for `FORSAKEN_S`. On one host the kernel ends the worker.

        When the connection is back, ZeroMQ counts it as a new peer, and the supervisor may have given the worker up. So
        the worker sends HELLO again.
        """
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self._alone_s = self._alone_s or time.monotonic()
            elif self._alone_s is not None:
                self._alone_s = None
                self._hello()
        return self._keys is not None and self._alone_s is not None and time.monotonic() - self._alone_s > FORSAKEN_S

    def close(self) -> None:
        """Close the channel."""
        self._channel.disable_monitor()
        self._monitor.close(0)
        self._channel.close()
        self._events.close()

    def _obey(self, command: protocol.Command, received_ns: int) -> None:
        if isinstance(command, protocol.Assign):
            self._open(command)
            return
        if isinstance(command, protocol.Seek):
            self._seek(command)
            return
        if isinstance(command, protocol.Ping):
            self._send(protocol.Pong(command.t0, received_ns, self._clock()))
            return
        if isinstance(command, protocol.SetClock):
            self._offset_ns += command.offset_ns
            return
        worker = self._worker
        if worker is None:
            return  # its part could not be opened, which the supervisor will learn from Refused
        match command:
            case protocol.Connect():
                self._epoch, self._end_sent = command.epoch, False
                worker.connect(
                    command.epoch,
                    ResumePoint(command.first, frozenset(command.without), command.since_ns, command.done),
                )
            case protocol.OpenBypass():
                worker.open_bypass(command.link, command.number)
            case protocol.LetGo():
                stuck = worker.let_go(command.deadline_s)
                self._send(protocol.Quiet(worker.report(), stuck))
            case protocol.AddSettings():
                change = Timed(command.config, command.over_ns, command.named, command.on_beat)
                worker.book.add(command.version, validate(command.config), change, command.asked_ns)
            case protocol.BeginSettings():
                self._send(protocol.SettingsBegun(command.version, worker.book.begin(command.version)))
            case protocol.PauseSource():
                worker.pause(command.paused)
            case protocol.StopSource():
                self._stopped = True
            case protocol.Snap():
                self._send(protocol.ShownPicture(snapshot(worker)))
            case _:
                raise AssertionError(command)

    def _seek(self, command: protocol.Seek) -> None:
        try:
            info, self._connected = find_source(command.url, near=command.near)
        except Exception as error:  # noqa: BLE001  (sent to the supervisor, which raises it)
            self._send(protocol.Refused(kind_of(error), self._name, text_of(error)))
            return
        self._send(protocol.Found(Info.of(info)))

    def _open(self, part: protocol.Assign) -> None:
        self._drop()
        try:
            self._worker = self._opened(part)
        except Exception as error:  # noqa: BLE001  (sent to the supervisor, which raises it)
            self._send(protocol.Refused(kind_of(error), self._name, text_of(error)))
            return
        self._send(protocol.Ready())

    def _opened(self, part: protocol.Assign) -> Worker:
        config = validate(part.config)
        if self._keys is not None:  # on another host, the path in the configuration is the supervisor's
            config = config.model_copy(update={"keys": str(self._keys.folder)})
        info = part.info.video()
        connected, self._connected = self._connected, None
        context = self._context(config, part)
        try:
            plan = plan_graph(
                config,
                temporal=part.temporal,
                calls=context.calls,
                printed=context.bundle.about.printed,
                remembers=context.remembers,
                live=info.live or config.paced,
                folder=part.folder,
            )
            worker = Worker(
                part.worker,
                plan,
                context,
                self._endpoints(config, part, connected),
                SettingsBook(config, part.version),
                Forwarded(self._report),
                lambda: self._stopped,
                run=part.run,
            )
            if any(node.worker == part.worker and node.role == "stage" for node in plan.nodes):
                compile_loops(config, self._tell)  # on the supervisor's host that is done already
            worker.open()
        except BaseException:
            context.close()
            raise
        return worker

    def _endpoints(self, config: GraphConfig, part: protocol.Assign, connected: LiveSource | None) -> Endpoints:
        info = part.info.video()
        endpoints = endpoints_of(config, info, part.size, connected)
        return (
            endpoints
            if self._viewer is None
            else seen_by(self._viewer, "", endpoints, info, config.output or part.size)
        )

    def _context(self, config: GraphConfig, part: protocol.Assign) -> RunContext:
        bundle = load_bundle(config.bundle).in_precision(part.precision)
        engines = Engines(part.backend, config.device, config.threads or usable_cores(), None, self._tell)
        # Opened on first use: a worker without `predict` does not need a text encoder.
        prompts = WhenAsked(lambda: open_prompts(config, bundle, engines))
        track = Track() if part.trace else None
        return RunContext(
            config,
            bundle,
            part.size,
            engines,
            prompts,
            say=self._tell,
            clock=self._clock,
            track=track,
            shape=(part.info.width, part.info.height),
        )

    def _leave(self) -> None:
        worker = self._drop()
        if worker is None:
            return
        spans = [] if (track := worker.context.track) is None else [tuple(span) for span in track.spans()]
        self._send(protocol.Goodbye(worker.report(), spans))  # type: ignore[arg-type]

    def _drop(self) -> Worker | None:
        """Close the worker and return it; None without one. Sinks discard incomplete output."""
        worker, self._worker, self._epoch = self._worker, None, 0
        if worker is not None:
            worker.let_go(2.0)
            worker.close()
            worker.context.close()
        return worker

    def _tell(self, line: str) -> None:
        self._events.put(protocol.Said(line))

    def _report(self, fault: StageFault) -> None:
        trace = "".join(traceback.format_exception(fault.error))
        self._events.put(
            protocol.Faulted(
                self._epoch,
                fault.stage,
                fault.seq,
                fault.passed,
                kind_of(fault.error),
                text_of(fault.error),
                trace[-20_000:],
            )
        )

    def _hello(self) -> None:
        self._send(protocol.WorkerHello(protocol.VERSION, self._name, os.getpid()))

    def _send(self, event: protocol.Event) -> None:
        self._channel.send(protocol.encode(event))

    def _clock(self) -> int:
        return time.monotonic_ns() + self._offset_ns
