"""The fork server: the process that worker processes are forked from.

It loads torch, OpenCV and ZeroMQ once, opens nothing, and forks a worker on command. So starting a worker takes
milliseconds instead of seconds, and the code is in memory once. It must not use a card, a network or a thread pool
itself, since a forked process cannot use what it inherits of those.

It ends with the supervisor: when its socket is closed, it kills its workers and removes what they left.

Note: why not `multiprocessing`'s forkserver. Its workers survive a supervisor that is killed, since each of them holds
the descriptor whose end it waits for. It runs the user's main module again in every worker. It cannot load the loops'
machine code between two forks (bench/LOG.md, "The standard library's fork server").
"""

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from warpfuse.graph.links.shared_memory import sweep
from warpfuse.graph.processes.parent_death import die_with_parent
from warpfuse.stages.timing import Waker

assert sys.platform != "win32"  # nothing forks there: a run is one process (and its types are not checked for it)

_MESSAGE = 65536


def main(fd: int, folder: str) -> None:
    """Serve the supervisor at the other end of a SEQPACKET socket.

        {"start": NAME, "endpoint": E, "loops": L}  ->  {"started": NAME, "pid": P}     L: load the stages' loops before
        {"kill": P}
                                                        {"exited": P, "code": C}        C < 0: by signal -C

    folder  the run's folder, removed when the supervisor has died and left it

    Note: the kernel does not kill the fork server with the supervisor. The end of the socket tells it, and leaves it
    time to clean up.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides how a run ends
    from warpfuse.graph.processes import worker_process  # slow: it imports torch
    from warpfuse.stages.cpu.compile import compile_all

    worker_process.preload()
    gc.freeze()  # the collector then does not write into the loaded objects, whose pages stay shared with the workers
    ForkServer(socket.socket(fileno=fd), worker_process.main, Path(folder), compile_all).serve()


class ForkServer:
    """Forks, reaps and kills worker processes, in one thread.

    line    socket to the supervisor
    work    function of a worker process: (endpoint, name) -> exit code
    folder  the run's folder
    load    loads the compiled loops
    """

    def __init__(
        self, line: socket.socket, work: Callable[[str, str], int], folder: Path, load: Callable[[], None]
    ) -> None:
        self._line = line
        self._work = work
        self._load = load
        self._folder = folder
        self._alive: set[int] = set()
        self._waker = Waker()

    def serve(self) -> None:
        """Handle commands until the supervisor is gone."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._waker.write_fd, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._line.fileno(), self._waker.fd], [], [])
            if self._waker.fd in ready:
                self._waker.clear()
                self._reap()
            if self._line.fileno() in ready:
                try:
                    data = self._line.recv(_MESSAGE)
                except ConnectionError:  # the supervisor closed its end with messages unread
                    break
                if not data:
                    break
                self._obey(json.loads(data))
        self._clean_up()

    def _obey(self, command: dict[str, object]) -> None:
        if "kill" in command:
            pid = int(str(command["kill"]))
            if pid in self._alive:  # not reaped yet, so the id cannot belong to another process
                os.kill(pid, signal.SIGKILL)
            return
        name, endpoint = str(command["start"]), str(command["endpoint"])
        if command["loops"]:
            self._load()
        here = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # Python 3.12 warns because of numpy's idle threads, which do no harm here
            pid = os.fork()
        if pid == 0:
            self._become(name, endpoint, here)
        self._alive.add(pid)
        self._tell({"started": name, "pid": pid})

    def _become(self, name: str, endpoint: str, parent: int) -> None:
        """In the child process: run the worker, then exit without the cleanup of inherited objects."""
        code = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._line.close()
            self._waker.close()
            code = self._work(endpoint, name)
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._alive:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._alive.discard(pid)
            self._tell({"exited": pid, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, which the next `recv` shows
            self._line.send(json.dumps(message).encode())

    def _clean_up(self) -> None:
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
        for pid in self._alive:
            os.waitpid(pid, 0)
        shutil.rmtree(self._folder, ignore_errors=True)
        sweep()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # skips the shutdown of torch, which takes a second while the supervisor waits
