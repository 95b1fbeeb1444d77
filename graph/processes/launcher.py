"""Starting and ending worker processes: what the supervisor asks of it, and the way it is done on one host."""

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
_END_S = 10.0  # of a process that was killed, to be gone


class Launcher(Protocol):
    """Starts worker processes somewhere. One thread uses it.

    fd  readable when `exited` has something to tell; -1: it never has. Another one after `exited` told of an end
    """

    fd: int

    def start(self, worker: str, endpoint: str) -> None:
        """Start a worker, which will dial the endpoint. It may take its time."""

    def exited(self) -> Iterator[tuple[str, int]]:
        """Workers whose process has ended since, and their exit codes; below 0: by that signal."""

    def age_s(self, worker: str) -> float:
        """How long its process has been there, 0 while it is not."""

    def kill(self, worker: str) -> None:
        """End the worker's process at once, if it can be reached."""

    def close(self) -> None:
        """End every process that is left."""


class LocalProcesses:
    """Workers of this host, forked from the fork server (`graph/processes/fork_server.py`).

    A fork server that is killed takes its workers with it: each is told as killed, and there is another fork server.

    loops  whether they are forked with the machine code of the stages' loops, which is then in memory once; set it when
           that is on disk
    """

    loops = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        """Start the fork server. Of an earlier one nothing is known any more."""
        self._line, theirs = _line()
        self._pids: dict[str, int] = {}
        self._asked: set[str] = set()  # told to start, and not heard of yet
        self._doomed: set[str] = set()
        self._begun_s: dict[str, float] = {}
        self._workers: dict[int, str] = {}
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "warpfuse.graph.processes.fork_server", str(fd), str(self._folder)]
            self._process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True)
        self.fd = self._line.fileno()

    def start(self, worker: str, endpoint: str) -> None:
        """Fork it."""
        self._doomed.discard(worker)
        self._asked.add(worker)
        self._tell({"start": worker, "endpoint": endpoint, "loops": self.loops})

    def exited(self) -> Iterator[tuple[str, int]]:
        """What the fork server tells; once it is gone, that all of its workers are."""
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
                    yield worker, -signal.SIGKILL  # they die with it (`parent_death.py`)
                return
            word = json.loads(data)
            if "started" in word:
                worker, pid = str(word["started"]), int(word["pid"])
                self._pids[worker], self._workers[pid] = pid, worker
                self._begun_s[worker] = time.monotonic()
                self._asked.discard(worker)
                if worker in self._doomed:
                    self._tell({"kill": pid})
            else:
                worker = self._workers.pop(int(word["exited"]))
                if self._pids.get(worker) == int(word["exited"]):
                    del self._pids[worker]
                yield worker, int(word["code"])

    def pid(self, worker: str) -> int | None:
        """The process of a worker, while it is known to live."""
        return self._pids.get(worker)

    def age_s(self, worker: str) -> float:
        """How long its process has been there."""
        return time.monotonic() - self._begun_s[worker] if worker in self._pids else 0.0

    def kill(self, worker: str) -> None:
        """SIGKILL; told by `exited` when it is done. One that is just being started dies as soon as it is."""
        self._doomed.add(worker)
        if worker in self._pids:
            self._tell({"kill": self._pids[worker]})

    def close(self) -> None:
        """Close the line: the fork server ends its workers and itself."""
        self._line.close()
        if not self._begun_s:  # it may be loading yet; what it is forking dies with it
            self._process.kill()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode:  # it was killed, and has not cleaned up itself
            _wait_for_end(self._workers)
            sweep()

    def _tell(self, order: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the fork server is gone: `exited` finds that, and what was lost with it
            self._line.send(json.dumps(order).encode())


def _line() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that keeps messages apart."""
    if sys.platform == "win32":
        raise NotImplementedError
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _wait_for_end(pids: Iterable[int]) -> None:
    """Until these are gone: they are being killed, and hold devices and shared memory to the last."""
    left = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    psutil.wait_procs(left, _END_S)


class ByHand:
    """Workers that somebody starts on another host: they are waited for, and cannot be killed from here."""

    fd = -1

    def start(self, worker: str, endpoint: str) -> None:
        """It dials in when it is there."""

    def exited(self) -> Iterator[tuple[str, int]]:
        """Never known; the line tells."""
        yield from ()

    def age_s(self, worker: str) -> float:
        """Never known."""
        return 0.0

    def kill(self, worker: str) -> None:
        """It finds its line closed and ends."""

    def close(self) -> None:
        """Nothing is held."""
