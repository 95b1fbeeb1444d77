"""The life of a worker process: dial the supervisor, be told the part, obey until the end."""

import os
import time
import traceback

import zmq
from zmq.utils.monitor import recv_monitor_message

from warpfuse.engine.bundle import load_bundle
from warpfuse.graph import orders
from warpfuse.graph.build import Materials, calls_of, open_prompts, usable_cores
from warpfuse.graph.config import GraphConfig, validate
from warpfuse.graph.curve import Keys
from warpfuse.graph.desk import snapshot
from warpfuse.graph.engines import Engines
from warpfuse.graph.faults import Fault, Forwarded
from warpfuse.graph.foreign import kind_of, text_of
from warpfuse.graph.line import dial
from warpfuse.graph.opening import compile_loops, ends_of, find_source
from warpfuse.graph.outbox import Outbox
from warpfuse.graph.plan import plan_graph
from warpfuse.graph.settings import SettingsBook
from warpfuse.graph.source_runner import Resume
from warpfuse.graph.told_video import Info
from warpfuse.graph.trace import Track
from warpfuse.graph.worker import Worker
from warpfuse.stages.prompts import WhenAsked
from warpfuse.stages.sources.live import LiveSource

BEAT_S = 0.25
FORSAKEN_S = 30.0
FAILED = 4
_TICK_MS = 60


def main(endpoint: str, name: str, keys: Keys | None = None) -> int:
    """Run the worker `name` for the supervisor at the endpoint. keys: of a line between hosts. The exit code."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    process = WorkerProcess(context, endpoint, name, keys)
    try:
        return process.serve()
    finally:
        process.close()
        context.term()


class WorkerProcess:
    """One thread serves; those of the stages put what they have to tell into a queue."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, name: str, keys: Keys | None = None
    ) -> None:
        self._name = name
        self._keys = keys
        self._line = dial(context, endpoint, keys)
        self._monitor = self._line.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._outbox = Outbox()
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
        poller.register(self._line, zmq.POLLIN)
        poller.register(self._outbox.fd, zmq.POLLIN)
        beat_at = 0.0
        while True:
            poller.poll(_TICK_MS)
            for word in self._outbox.taken():
                self._send(word)
            while int(self._line.get(zmq.EVENTS)) & zmq.POLLIN:
                came = self._clock()
                order = orders.order(self._line.recv())
                if isinstance(order, orders.Exit):
                    self._leave()
                    return 0
                self._obey(order, came)
            if self._forsaken():
                self._leave()
                return FAILED
            worker = self._worker
            if worker is not None:
                for line in worker.news():
                    self._send(orders.Said(line))
                ended = bool(self._epoch) and worker.ended
                if time.monotonic() >= beat_at or (ended and not self._told_end):
                    beat_at = time.monotonic() + BEAT_S
                    self._told_end = ended
                    self._send(orders.Beat(worker.report()))

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
        self._line.disable_monitor()
        self._monitor.close(0)
        self._line.close()
        self._outbox.close()

    def _obey(self, order: orders.Order, came: int) -> None:
        if isinstance(order, orders.Assign):
            self._open(order)
            return
        if isinstance(order, orders.Seek):
            self._seek(order)
            return
        if isinstance(order, orders.Ping):
            self._send(orders.Pong(order.t0, came, self._clock()))
            return
        if isinstance(order, orders.SetClock):
            self._offset_ns += order.offset_ns
            return
        worker = self._worker
        if worker is None:
            return  # refused: the supervisor is about to know
        match order:
            case orders.Connect():
                self._epoch, self._told_end = order.epoch, False
                worker.connect(order.epoch, Resume(order.first, frozenset(order.without), order.since_ns, order.done))
            case orders.OpenBypass():
                worker.open_bypass(order.link, order.number)
            case orders.LetGo():
                stuck = worker.let_go(order.deadline_s)
                self._send(orders.Quiet(worker.report(), stuck))
            case orders.Add():
                worker.book.add(order.version, validate(order.config))
            case orders.Begin():
                self._send(orders.Begun(order.version, worker.book.begin(order.version)))
            case orders.Pause():
                worker.pause(order.paused)
            case orders.Stop():
                self._stopped = True
            case orders.Snap():
                self._send(orders.Picture(snapshot(worker)))
            case _:
                raise AssertionError(order)

    def _seek(self, order: orders.Seek) -> None:
        try:
            info, self._connected = find_source(order.url, near=order.near)
        except Exception as error:  # noqa: BLE001  (told, and raised by who asked)
            self._send(orders.Refused(kind_of(error), self._name, text_of(error)))
            return
        self._send(orders.Found(Info.of(info)))

    def _open(self, part: orders.Assign) -> None:
        self._drop()
        try:
            self._worker = self._opened(part)
        except Exception as error:  # noqa: BLE001  (told, and raised by the supervisor)
            self._send(orders.Refused(kind_of(error), self._name, text_of(error)))
            return
        self._send(orders.Ready())

    def _opened(self, part: orders.Assign) -> Worker:
        config = validate(part.config)
        if self._keys is not None:  # this host's own, wherever they lie
            config = config.model_copy(update={"keys": str(self._keys.folder)})
        info = part.info.video()
        connected, self._connected = self._connected, None
        materials = self._materials(config, part)
        try:
            plan = plan_graph(
                config,
                calls=calls_of(materials),
                printed=materials.bundle.about.printed,
                live=info.live or config.realtime,
                folder=part.folder,
            )
            worker = Worker(
                part.worker,
                plan,
                materials,
                ends_of(config, info, part.size, connected),
                SettingsBook(config, part.version),
                Forwarded(self._report),
                lambda: self._stopped,
                clock=self._clock,
                track=Track() if part.trace else None,
                run=part.run,
            )
            if any(node.worker == part.worker and node.role == "stage" for node in plan.nodes):
                compile_loops(config, self._tell)  # done by the run on this host, on no other
            worker.open()
        except BaseException:
            materials.close()
            raise
        return worker

    def _materials(self, config: GraphConfig, part: orders.Assign) -> Materials:
        bundle = load_bundle(config.bundle).in_precision(part.precision)
        engines = Engines(part.backend, config.device, config.threads or usable_cores(), None, self._tell)
        # A worker without `predict` has no use for a text encoder.
        prompts = WhenAsked(lambda: open_prompts(config, bundle, engines))
        return Materials(config, bundle, part.size, engines, prompts)

    def _leave(self) -> None:
        worker = self._drop()
        if worker is None:
            return
        spans = [] if worker.track is None else [tuple(span) for span in worker.track.spans()]
        self._send(orders.Gone(worker.report(), spans))  # type: ignore[arg-type]

    def _drop(self) -> Worker | None:
        """Close what was opened; sinks that are not complete discard. The worker it was."""
        worker, self._worker, self._epoch = self._worker, None, 0
        if worker is not None:
            worker.let_go(2.0)
            worker.close()
            worker.materials.close()
        return worker

    def _tell(self, line: str) -> None:
        self._outbox.put(orders.Said(line))

    def _report(self, fault: Fault) -> None:
        trace = "".join(traceback.format_exception(fault.error))
        self._outbox.put(
            orders.Faulted(
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
        self._send(orders.Hello(orders.VERSION, self._name, os.getpid()))

    def _send(self, word: orders.Word) -> None:
        self._line.send(orders.encode(word))

    def _clock(self) -> int:
        return time.monotonic_ns() + self._offset_ns
