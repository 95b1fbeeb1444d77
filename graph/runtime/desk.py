"""Answers requests about a graph that runs in this process, in a thread of its own."""

import threading
import time
from collections.abc import Callable

import cv2
import zmq

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.control.messages import (
    Applied,
    Control,
    Denied,
    Done,
    Figures,
    GetStats,
    Pause,
    Reply,
    Request,
    Resume,
    Snapshot,
    shown,
)
from warpfuse.graph.control.messages import Set as SetKeys
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.live_settings import LiveSettings
from warpfuse.graph.runtime.worker import Worker

_TICK_MS = 100


class Desk:
    """Serves until it is closed. A context manager.

    stats  the figures so far, from any thread
    stop   ends the run when it is set
    """

    def __init__(
        self,
        endpoint: str,
        worker: Worker,
        settings: LiveSettings,
        *,
        stats: Callable[[], Stats],
        stop: threading.Event,
    ) -> None:
        self._worker, self._settings, self._stats, self._stop = worker, settings, stats, stop
        self._begun_s = time.monotonic()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = Control(self._context, endpoint)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="wf:control", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer nothing more."""
        self._closing = True
        self._thread.join()
        self._control.close()
        self._context.term()

    def _serve(self) -> None:
        while not self._closing:
            self._control.socket.poll(_TICK_MS)
            for to, request in self._control.requests():
                try:
                    reply = self._answer(request)
                except WarpfuseError as error:
                    reply = Denied(str(error))
                self._control.reply(to, reply)

    def _answer(self, request: Request) -> Reply:
        worker = self._worker
        match request:
            case GetStats():
                nodes = [runner.stage_name for runner in worker.runners]
                return Figures(self._stats().to_dict(), time.monotonic() - self._begun_s, {worker.name: nodes})
            case SetKeys():
                config = self._settings.changed(request.keys)
                version = worker.book.newest + 1
                worker.book.add(version, config)
                return Applied(version, worker.book.begin(version))
            case Snapshot():
                return shown(snapshot(worker))
            case Pause() | Resume():
                worker.pause(isinstance(request, Pause))
            case _:
                self._stop.set()
        return Done()


def snapshot(worker: Worker) -> bytes:
    """The picture that the worker's first sink showed last, as PNG; empty before the first."""
    for sink in worker.sinks:
        if (rgb := sink.last) is not None:
            _, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
            return bytes(png.tobytes())
    return b""
