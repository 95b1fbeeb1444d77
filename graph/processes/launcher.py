"""Launchers, which start and end worker processes: the protocol, local processes, and workers on other hosts."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import psutil

from warpfuse.graph.links.shared_memory import sweep

_MESSAGE = 65536
_END_S = 10.0  # longest time a killed process needs to end


class Launcher(Protocol):
    """Starts worker processes. One thread uses it.

    fd  file descriptor, readable when `exited` has workers to report; -1: it never has. It may change in `exited`
    """

    fd: int

    def start(self, worker: str, endpoint: str) -> None:
        """Start a worker, which will connect to the endpoint some time later."""

    def exited(self) -> Iterator[tuple[str, int]]:
        """Yield the workers whose processes have ended since the last call, with exit codes; -N: by signal N."""

    def age_s(self, worker: str) -> float:
        """Seconds since the worker's process was started; 0 without a process."""

    def kill(self, worker: str) -> None:
        """End the worker's process at once, where that is possible."""

    def close(self) -> None:
        """End every process."""


class LocalProcesses:
    """Workers of this host, forked from the fork server (`graph/processes/fork_server.py`).

    When the fork server is killed, its workers die with it. `exited` then reports them all as killed and starts another
    fork server.

    loops  load the compiled loops before forking, so that they are in memory once; set it when they are compiled
    """

    loops = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        """Start a fork server, and forget the workers of an earlier one."""
        self._line, theirs = _line()
        self._pids: dict[str, int] = {}
        self._asked: set[str] = set()  # asked for, and not started yet
        self._doomed: set[str] = set()
        self._begun_s: dict[str, float] = {}
        self._workers: dict[int, str] = {}
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "warpfuse.graph.processes.fork_server", str(fd), str(self._folder)]
            self._process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True)
        self.fd = self._line.fileno()

    def start(self, worker: str, endpoint: str) -> None:
        """Have the fork server fork the worker."""
        self._doomed.discard(worker)
        self._asked.add(worker)
        self._tell({"start": worker, "endpoint": endpoint, "loops": self.loops})

    def exited(self) -> Iterator[tuple[str, int]]:
        """Yield the workers that the fork server reports as ended; all of its workers if it is gone itself."""
        if sys.platform == "win32":
            raise NotImplementedError
        while True:
            try:
                data = self._line.recv(_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._process.wait()
                self._line.close()
                lost = {*self._pids, *self._asked}
                _wait_for_end(self._workers)
                self._begin()
                for worker in lost:
                    yield worker, -signal.SIGKILL  # the kernel kills them with it (`parent_death.py`)
                return
            message = json.loads(data)
            if "started" in message:
                worker, pid = str(message["started"]), int(message["pid"])
                self._pids[worker], self._workers[pid] = pid, worker
                self._begun_s[worker] = time.monotonic()
                self._asked.discard(worker)
                if worker in self._doomed:
                    self._tell({"kill": pid})
            else:
                worker = self._workers.pop(int(message["exited"]))
                if self._pids.get(worker) == int(message["exited"]):
                    del self._pids[worker]
                yield worker, int(message["code"])

    def pid(self, worker: str) -> int | None:
        """Process id of a worker; None without a process."""
        return self._pids.get(worker)

    def age_s(self, worker: str) -> float:
        """Seconds since the worker's process was started; 0 without a process."""
        return time.monotonic() - self._begun_s[worker] if worker in self._pids else 0.0

    def kill(self, worker: str) -> None:
        """Send SIGKILL; `exited` reports the end. A worker that is just being started is killed once it is."""
        self._doomed.add(worker)
        if worker in self._pids:
            self._tell({"kill": self._pids[worker]})

    def close(self) -> None:
        """Close the socket to the fork server, which then ends its workers and itself."""
        self._line.close()
        if not self._begun_s:  # it may still be importing; a worker that it is forking dies with it
            self._process.kill()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode:  # it was killed before it could clean up
            _wait_for_end(self._workers)
            sweep()

    def _tell(self, command: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the fork server is gone, which `exited` handles
            self._line.send(json.dumps(command).encode())


def _line() -> tuple[socket.socket, socket.socket]:
    """Both ends of a socket that keeps the boundaries of messages."""
    if sys.platform == "win32":
        raise NotImplementedError
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _wait_for_end(pids: Iterable[int]) -> None:
    """Wait until these processes, which were killed, have ended: until then they hold devices and shared memory."""
    left = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    psutil.wait_procs(left, _END_S)


class ByHand:
    """Workers that a user starts by hand on another host. They cannot be started or killed from here."""

    fd = -1

    def start(self, worker: str, endpoint: str) -> None:
        """Does nothing: the worker connects when the user has started it."""

    def exited(self) -> Iterator[tuple[str, int]]:
        """Yields nothing: the end of a remote process is noticed by its channel."""
        yield from ()

    def age_s(self, worker: str) -> float:
        """Always 0: unknown."""
        return 0.0

    def kill(self, worker: str) -> None:
        """Does nothing: the worker ends when it finds its channel closed."""

    def close(self) -> None:
        """Does nothing: each worker ends when it finds its channel closed."""
