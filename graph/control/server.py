"""Answers requests about a run, in a thread of its own."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import zmq

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.control.messages import (
    AddStream,
    ControlSocket,
    Counts,
    Denied,
    Done,
    GetCounts,
    GetStats,
    Pause,
    RemoveStream,
    Reply,
    Request,
    Resume,
    RunFigures,
    Set,
    Snapshot,
    StreamAdded,
    shown,
)
from warpfuse.graph.control.run import ManyStreams, Run
from warpfuse.graph.errors import ConfigError

_TICK_MS = 100
_DUE_MS = 5  # while an answer is due
_AT_ONCE = 4  # requests: one that waits for a worker holds up no other


class ControlServer:
    """Serves until it is closed. A context manager; it knows of the run only what `Run` says.

    folder  of the run, which only the user can enter
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self._run = run
        self._begun_s = time.monotonic()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = ControlSocket(self._context, folder)
        self._answering = ThreadPoolExecutor(_AT_ONCE, "wf:answer")
        self._due: list[tuple[list[bytes], Future[Reply]]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="wf:control", daemon=True)
        self._thread.start()

    def __enter__(self) -> "ControlServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer nothing more. Call it when the run has ended: what is being answered is waited for."""
        self._closing = True
        self._thread.join()
        self._answering.shutdown()
        self._reply()
        self._control.close()
        self._context.term()

    def _serve(self) -> None:
        while not self._closing:
            self._control.socket.poll(_DUE_MS if self._due else _TICK_MS)
            for to, request in self._control.requests():
                self._due.append((to, self._answering.submit(self._answer, request)))
            self._reply()

    def _reply(self) -> None:
        """Send what has been answered."""
        answered = [entry for entry in self._due if entry[1].done()]
        self._due = [entry for entry in self._due if entry not in answered]
        for to, answer in answered:
            self._control.reply(to, answer.result())

    def _answer(self, request: Request) -> Reply:
        try:
            return self._asked(request)
        except WarpfuseError as error:
            return Denied(str(error))

    def _asked(self, request: Request) -> Reply:
        run = self._run
        match request:
            case GetStats():
                return RunFigures(run.stats().to_dict(), time.monotonic() - self._begun_s, run.workers())
            case Set():
                return run.change(request.keys)
            case Snapshot():
                return shown(run.snapshot())
            case Pause():
                run.pause()
            case Resume():
                run.resume()
            case GetCounts():
                return Counts(_of_several(run).counts())
            case AddStream():
                return StreamAdded(_of_several(run).add(request.name, request.keys))
            case RemoveStream():
                _of_several(run).remove(request.name)
            case _:
                run.stop()
        return Done()


def _of_several(run: Run) -> ManyStreams:
    if isinstance(run, ManyStreams):
        return run
    raise ConfigError(
        "this run has one stream; `streams`, `add` and `remove` are for a run of several, which says its own name"
    )
