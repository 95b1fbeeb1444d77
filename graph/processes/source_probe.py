"""Probing a live source before the graph is planned.

The plan depends on the source's size and rate, and on whether it can wait. Many servers accept only one connection, so
the worker process that will read the source is started first. It connects and reports the source's info, and gets its
part of the graph after planning.
"""

import contextlib
import threading
from pathlib import Path

import zmq

from warpfuse.engine.redact import redact
from warpfuse.graph.errors import Elsewhere, StageFailed
from warpfuse.graph.processes import protocol
from warpfuse.graph.processes.channel import Channel, events
from warpfuse.graph.processes.launcher import LocalProcesses
from warpfuse.graph.processes.remote_errors import error_of
from warpfuse.stages.errors import Stopped
from warpfuse.stages.stage import VideoInfo

_TICK_MS = 50


class SourceProbe:
    """The worker process that reads the source, before the graph is planned.

    The worker pool takes over `context`, `processes` and `channel`, and then calls `let_go`.

    worker  name that the worker will have in the plan
    folder  the run's folder, mode 0700
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self.worker = worker
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with contextlib.ExitStack() as undo:
            undo.callback(self.context.term)
            self.channel = Channel(self.context, f"ipc://{folder}/line-{worker}-1")
            undo.callback(self.channel.close)
            self.processes = LocalProcesses(folder)
            undo.callback(self.processes.close)
            self._undo = undo.pop_all()

    def find(self, url: str, stop: threading.Event, near: tuple[int, int] | None = None) -> VideoInfo:
        """Start the process and have it connect. Returns the source's info. near: as in find_source.

        Raises BadInput, StreamLost; StageFailed when the process dies; Stopped when `stop` is set.
        """
        self.processes.start(self.worker, self.channel.endpoint)
        poller = zmq.Poller()
        poller.register(self.channel.socket, zmq.POLLIN)
        poller.register(self.processes.fd, zmq.POLLIN)
        while True:
            if stop.is_set():
                raise Stopped(f"{redact(url)}: stopped while it was being connected")
            poller.poll(_TICK_MS)
            for event in events(self.channel, self.worker):
                match event:
                    case protocol.WorkerHello():
                        self.channel.send(protocol.encode(protocol.Seek(url, near)))
                    case protocol.Found():
                        return event.info.video()
                    case protocol.Refused():
                        raise error_of(event.kind, event.stage, event.text)
            for worker, code in self.processes.exited():
                raise StageFailed(worker, Elsewhere(f"its process ended with code {code} while it connected"))

    def let_go(self) -> None:
        """Give up ownership: `close` then frees nothing."""
        self._undo.pop_all()

    def close(self) -> None:
        """End the process and its connection, unless `let_go` was called. A second call does nothing."""
        self._undo.close()
