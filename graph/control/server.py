"""The control server of a run. It answers requests in threads of its own."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
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
    EndLife,
    GetBeat,
    GetCounts,
    GetSettings,
    GetStats,
    Pause,
    RemoveStream,
    Reply,
    Request,
    Resume,
    RunFigures,
    Set,
    Settings,
    Snapshot,
    StartLife,
    StreamAdded,
    shown,
)
from warpfuse.graph.control.run import LeasedStreams, ManyStreams, Run
from warpfuse.graph.control.run_directory import RunDirectory, free_name
from warpfuse.graph.errors import ConfigError

_TICK_MS = 100
_DUE_MS = 5  # poll interval while a reply is pending
_AT_ONCE = 4  # requests handled at once, so that one that waits for a worker does not delay the others


class ControlServer:
    """Answers requests until it is closed. A context manager. It uses only the protocol `Run`.

    folder  the run's folder, which only the user can enter
    leased  answers the controller of a cluster; None: the run is not of a cluster
    """

    def __init__(self, folder: Path, run: Run, leased: LeasedStreams | None = None) -> None:
        self._run, self._leases = run, leased
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
        """Accept no more requests, and wait for those being handled. Call it when the run has ended."""
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
        """Send the replies that are ready."""
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
            case GetSettings():
                return Settings(run.settings())
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
            case GetBeat():
                return self._leased.beat(request.grants)
            case StartLife():
                self._leased.begin(request)
            case EndLife():
                self._leased.end(request.name, request.generation)
            case _:
                run.stop()
        return Done()

    @property
    def _leased(self) -> LeasedStreams:
        if self._leases is None:
            raise ConfigError("this run is no host of a cluster: `warpfuse cluster join` starts those")
        return self._leases


def _of_several(run: Run) -> ManyStreams:
    if isinstance(run, ManyStreams):
        return run
    raise ConfigError(
        "this run has one stream; `streams`, `add` and `remove` are for a run of several, which says its own name"
    )


@contextlib.contextmanager
def served(name: str, run: Run, tell: Callable[[str], None]) -> Iterator[None]:
    """Within the block, the run answers `warpfuse ctl`. tell: called with the name under which it does."""
    with RunDirectory(free_name(name)) as folder:
        tell(folder.name)
        with ControlServer(folder.path, run):
            yield
