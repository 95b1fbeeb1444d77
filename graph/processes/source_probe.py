"""A live source is connected once, by the process that will read it: many servers take one connection and no more.

What a run is built from depends on the source: its size, its rate, whether it waits. So the process is started before
there is a plan, connects, and tells; its part it gets when everything else is known.
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
    """The first of a run's worker processes. Whoever takes over `context`, `processes` and `line` calls `let_go`.

    worker  its name in the plan to come
    folder  of the run, 0700
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
        """Have it connect; what it found. near: as in find_source.

        Raises BadInput, StreamLost, StageFailed when the process dies of it; Stopped once `stop` is set."""
        self.processes.start(self.worker, self.channel.endpoint)
        poller = zmq.Poller()
        poller.register(self.channel.socket, zmq.POLLIN)
        poller.register(self.processes.fd, zmq.POLLIN)
        while True:
            if stop.is_set():
                raise Stopped(f"{redact(url)}: stopped while it was being connected")
            poller.poll(_TICK_MS)
            for word in events(self.channel, self.worker):
                match word:
                    case protocol.WorkerHello():
                        self.channel.send(protocol.encode(protocol.Seek(url, near)))
                    case protocol.Found():
                        return word.info.video()
                    case protocol.Refused():
                        raise error_of(word.kind, word.stage, word.text)
            for worker, code in self.processes.exited():
                raise StageFailed(worker, Elsewhere(f"its process ended with code {code} while it connected"))

    def let_go(self) -> None:
        """What it holds is another's from now on."""
        self._undo.pop_all()

    def close(self) -> None:
        """End the process and its connection, unless they are another's. A second call does nothing."""
        self._undo.close()
