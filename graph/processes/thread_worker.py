"""A worker in a thread of the calling process: where a viewer of a run of several processes gets its pictures."""

import threading
import time
from collections.abc import Iterator

from warpfuse.graph.processes.worker_process import main
from warpfuse.graph.runtime.endpoints import Viewer


class ThreadWorker:
    """A `Launcher` of one worker, which has the sink of a viewer. It speaks to the run as every worker does.

    fd  never readable: a thread that ends is told of by its line
    """

    fd = -1

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begun_s = 0.0

    def start(self, worker: str, endpoint: str) -> None:
        """Start the thread of one more life."""
        self._ended = ended = threading.Event()
        self._begun_s = time.monotonic()
        about = {"viewer": self._viewer, "ended": ended}
        thread = threading.Thread(target=main, args=(endpoint, worker), kwargs=about, name=f"wf:{worker}", daemon=True)
        self._threads = [life for life in self._threads if life.is_alive()] + [thread]
        thread.start()

    def exited(self) -> Iterator[tuple[str, int]]:
        """The line tells."""
        yield from ()

    def age_s(self, worker: str) -> float:
        """How long the thread has been there."""
        return time.monotonic() - self._begun_s

    def kill(self, worker: str) -> None:
        """Have the thread leave as soon as it looks."""
        self._ended.set()

    def close(self) -> None:
        """End every thread that is left."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
