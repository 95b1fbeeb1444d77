"""A worker in a thread of the supervisor's process. It brings a viewer the pictures of a run in several processes."""

import threading
import time
from collections.abc import Iterator

from warpfuse.graph.processes.worker_process import main
from warpfuse.graph.runtime.endpoints import Viewer


class ThreadWorker:
    """A `Launcher` of one worker, which has the sink of a viewer. The worker uses a channel, like every worker.

    fd  -1: the end of the thread is noticed by its channel
    """

    fd = -1

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begun_s = 0.0

    def start(self, worker: str, endpoint: str) -> None:
        """Start the worker's thread, or start it again."""
        self._ended = ended = threading.Event()
        self._begun_s = time.monotonic()
        options = {"viewer": self._viewer, "ended": ended}
        thread = threading.Thread(
            target=main, args=(endpoint, worker), kwargs=options, name=f"wf:{worker}", daemon=True
        )
        self._threads = [earlier for earlier in self._threads if earlier.is_alive()] + [thread]
        thread.start()

    def exited(self) -> Iterator[tuple[str, int]]:
        """Yields nothing: the end of the thread is noticed by its channel."""
        yield from ()

    def age_s(self, worker: str) -> float:
        """Seconds since the thread was started."""
        return time.monotonic() - self._begun_s

    def kill(self, worker: str) -> None:
        """Ask the thread to end. It does so within a tick, once its current command is done."""
        self._ended.set()

    def close(self) -> None:
        """End every thread and wait for it."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
