"""Build an engine in another process while this one works, and open it here when it is built.

A build takes every core for seconds to minutes, holds Python's lock for part of that, and may run out of memory. In a
process of its own it neither slows down nor ends the process that handles frames. It puts the artifact into the cache
(engine/artifacts.py), from which the engine opens fast.
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from warpfuse.engine.contract import Engine
from warpfuse.engine.errors import EngineError, WarpfuseError
from warpfuse.engine.feed import Shapes
from warpfuse.engine.open import open_engine

Command = Callable[["Order"], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Order:
    """An engine to build: the arguments of `open_engine`."""

    path: Path
    backend: str
    device: str
    shapes: Shapes | None


def build_here(order: Order) -> Sequence[str]:
    """The command that builds an order with this Python."""
    shapes = json.dumps({name: list(shape) for name, shape in (order.shapes or {}).items()})
    return [sys.executable, "-m", __name__, str(order.path), order.backend, order.device, shapes]


class Builds:
    """Builds engines one at a time, in the order of the calls to `order`. Thread-safe.

    command  makes the command line for an order; its last line on stderr is the reason when it fails
    """

    def __init__(self, command: Command = build_here) -> None:
        self._command = command
        self._orders: queue.SimpleQueue[tuple[Order, Future[Engine]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._at_work: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def order(self, order: Order) -> "Future[Engine]":
        """A future for the engine, which fails with an EngineError. Who takes the result must close it."""
        future: Future[Engine] = Future()
        self._orders.put((order, future))
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="wf:builds", daemon=True)
                self._thread.start()
        return future

    def close(self) -> None:
        """Kill the running build and drop the others. Finished artifacts stay in the cache."""
        with self._lock:
            self._closed = True
            if self._at_work is not None:
                self._at_work.kill()
        self._orders.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (item := self._orders.get()) is not None:
            order, future = item
            if self._closed or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                self._run(order)
                future.set_result(_open(order))
            except WarpfuseError as error:
                future.set_exception(error)
            except Exception as error:  # noqa: BLE001  the future reports it
                future.set_exception(EngineError(f"{order.path.name}: {error}"))

    def _run(self, order: Order) -> None:
        """Run the build. Raises EngineError when it fails."""
        with self._lock:
            if self._closed:
                raise EngineError(f"{order.path.name}: the run ended before it was built")
            self._at_work = subprocess.Popen(
                self._command(order), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True,
            )  # fmt: skip
        _, said = self._at_work.communicate()
        if self._at_work.returncode:
            lines = said.strip().splitlines()
            raise EngineError(
                lines[-1] if lines else f"{order.path.name}: the build ended by {self._at_work.returncode}"
            )


def _open(order: Order) -> Engine:
    """Open an engine while a run uses its device."""
    beside = {"beside": True} if order.backend == "tensorrt" else {}  # it alone times kernels when it builds
    return open_engine(order.path, order.backend, order.device, shapes=order.shapes, **beside)


def main(arguments: Sequence[str]) -> int:
    """Open and close one engine, which puts its artifact into the cache."""
    path, backend, device, shapes = arguments
    try:
        _open(Order(Path(path), backend, device, json.loads(shapes) or None)).close()
    except WarpfuseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
