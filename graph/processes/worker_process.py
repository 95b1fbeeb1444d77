"""The life of a worker process: open_channel the supervisor, be told the part, obey until the end."""

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
    """Run the worker `name` for the run at the endpoint; the exit code.

    keys    of a line between hosts
    viewer  of the run, where the worker is a thread of the process that looks; set `ended` to have it leave
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    process = WorkerProcess(context, endpoint, name, keys, viewer=viewer, ended=ended)
    try:
        return process.serve()
    finally:
        process.close()
        context.term()


def preload() -> None:
    """Load what workers open their networks, sources and sinks with, where it is installed."""
    for name in ("onnxruntime", "av", "warpfuse.stages.sources.file", "warpfuse.stages.sinks.file"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class WorkerProcess:
    """One thread serves; those of the stages put what they have to tell into a queue."""

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
        self._told_end = False
        self._alone_s: float | None = None

    def serve(self) -> int:
        """Until EXIT."""
        self._hello()
        poller = zmq.Poller()
        poller.register(self._channel, zmq.POLLIN)
        poller.register(self._events.fd, zmq.POLLIN)
        beat_at = 0.0
        while True:
            poller.poll(_TICK_MS)
            for word in self._events.taken():
                self._send(word)
            while int(self._channel.get(zmq.EVENTS)) & zmq.POLLIN:
                came = self._clock()
                order = protocol.command(self._channel.recv())
                if isinstance(order, protocol.Exit):
                    self._leave()
                    return 0
                self._obey(order, came)
            if self._forsaken() or self._ended.is_set():
                self._leave()
                return FAILED
            worker = self._worker
            if worker is not None:
                for line in worker.news():
                    self._send(protocol.Said(line))
                ended = bool(self._epoch) and worker.ended
                if time.monotonic() >= beat_at or (ended and not self._told_end):
                    beat_at = time.monotonic() + BEAT_S
                    self._told_end = ended
                    self._send(protocol.Beat(worker.report()))

    def _forsaken(self) -> bool:
        """The supervisor of another host has been gone for half a minute. On one host the kernel tells.

        To one that is back the worker is a stranger, as ZeroMQ counts, and may have been given up: it says HELLO again.
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
        """Close the line."""
        self._channel.disable_monitor()
        self._monitor.close(0)
        self._channel.close()
        self._events.close()

    def _obey(self, order: protocol.Command, came: int) -> None:
        if isinstance(order, protocol.Assign):
            self._open(order)
            return
        if isinstance(order, protocol.Seek):
            self._seek(order)
            return
        if isinstance(order, protocol.Ping):
            self._send(protocol.Pong(order.t0, came, self._clock()))
            return
        if isinstance(order, protocol.SetClock):
            self._offset_ns += order.offset_ns
            return
        worker = self._worker
        if worker is None:
            return  # refused: the supervisor is about to know
        match order:
            case protocol.Connect():
                self._epoch, self._told_end = order.epoch, False
                worker.connect(
                    order.epoch, ResumePoint(order.first, frozenset(order.without), order.since_ns, order.done)
                )
            case protocol.OpenBypass():
                worker.open_bypass(order.link, order.number)
            case protocol.LetGo():
                stuck = worker.let_go(order.deadline_s)
                self._send(protocol.Quiet(worker.report(), stuck))
            case protocol.AddSettings():
                change = Timed(order.config, order.over_ns, order.named)
                worker.book.add(order.version, validate(order.config), change)
            case protocol.BeginSettings():
                self._send(protocol.SettingsBegun(order.version, worker.book.begin(order.version)))
            case protocol.PauseSource():
                worker.pause(order.paused)
            case protocol.StopSource():
                self._stopped = True
            case protocol.Snap():
                self._send(protocol.ShownPicture(snapshot(worker)))
            case _:
                raise AssertionError(order)

    def _seek(self, order: protocol.Seek) -> None:
        try:
            info, self._connected = find_source(order.url, near=order.near)
        except Exception as error:  # noqa: BLE001  (told, and raised by who asked)
            self._send(protocol.Refused(kind_of(error), self._name, text_of(error)))
            return
        self._send(protocol.Found(Info.of(info)))

    def _open(self, part: protocol.Assign) -> None:
        self._drop()
        try:
            self._worker = self._opened(part)
        except Exception as error:  # noqa: BLE001  (told, and raised by the supervisor)
            self._send(protocol.Refused(kind_of(error), self._name, text_of(error)))
            return
        self._send(protocol.Ready())

    def _opened(self, part: protocol.Assign) -> Worker:
        config = validate(part.config)
        if self._keys is not None:  # this host's own, wherever they lie
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
                attends=context.attends,
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
                compile_loops(config, self._tell)  # done by the run on this host, on no other
            worker.open()
        except BaseException:
            context.close()
            raise
        return worker

    def _endpoints(self, config: GraphConfig, part: protocol.Assign, connected: LiveSource | None) -> Endpoints:
        info = part.info.video()
        endpoints = endpoints_of(config, info, part.size, connected)
        return endpoints if self._viewer is None else seen_by(self._viewer, "", endpoints, info, part.size)

    def _context(self, config: GraphConfig, part: protocol.Assign) -> RunContext:
        bundle = load_bundle(config.bundle).in_precision(part.precision)
        engines = Engines(part.backend, config.device, config.threads or usable_cores(), None, self._tell)
        # A worker without `predict` has no use for a text encoder.
        prompts = WhenAsked(lambda: open_prompts(config, bundle, engines))
        track = Track() if part.trace else None
        return RunContext(config, bundle, part.size, engines, prompts, say=self._tell, clock=self._clock, track=track)

    def _leave(self) -> None:
        worker = self._drop()
        if worker is None:
            return
        spans = [] if (track := worker.context.track) is None else [tuple(span) for span in track.spans()]
        self._send(protocol.Goodbye(worker.report(), spans))  # type: ignore[arg-type]

    def _drop(self) -> Worker | None:
        """Close what was opened; sinks that are not complete discard. The worker it was."""
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

    def _send(self, word: protocol.Event) -> None:
        self._channel.send(protocol.encode(word))

    def _clock(self) -> int:
        return time.monotonic_ns() + self._offset_ns
