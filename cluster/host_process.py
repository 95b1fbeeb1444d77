"""The process of a stream host of a cluster: started by its warden, in a session of its own, and ended by its stop.

What it is opened with comes as JSON on its standard input: an argument would be shown to every user of the machine.
"""

import contextlib
import hashlib
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from warpfuse.cluster.leased_host import LeasedHost, lease_clock
from warpfuse.cluster.secret_files import SecretFiles
from warpfuse.cluster.warden import SPEC_DIGEST, HostSpec
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.redact import guard_process
from warpfuse.graph.control.run_directory import RunDirectory
from warpfuse.graph.control.server import ControlServer, served
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.runtime.streams_run import open_streams

_TICK_S = 0.1


def run_host(given: bytes, stop: threading.Event) -> None:
    """Be a host until `stop` is set, or nobody asks for it any more. Raises as `open_streams`, and ConfigError.

    given  a HostSpec as JSON
    """
    spec = msgspec.json.decode(given, type=HostSpec)
    secrets = SecretFiles(Path(spec.secrets))

    def say(line: str) -> None:
        print(secrets.hidden(line), file=sys.stderr, flush=True)

    with RunDirectory(spec.name) as folder, contextlib.ExitStack() as undo:
        (folder.path / SPEC_DIGEST).write_text(hashlib.sha256(given).hexdigest())
        run = open_streams(
            read_streams({**spec.keys, "host": True}),
            undo,
            say=say,
            stop=stop,
            beside=lambda name, stream: served(name, stream, lambda told: say(f"stream {name} is {told}")),
        )
        leased = LeasedHost(run, secrets, stop)
        undo.enter_context(ControlServer(folder.path, run, leased))
        run.start()
        ticking = threading.Thread(target=_tick, args=(leased, spec.orphan_s, stop, say), name="wf:lease", daemon=True)
        ticking.start()
        run.wait()


def _tick(leased: LeasedHost, orphan_s: float, stop: threading.Event, say: Any) -> None:
    while not stop.wait(_TICK_S):
        leased.tick()
        if lease_clock() - leased.asked_s > orphan_s:
            say(f"no controller has asked for {orphan_s:g} s: this host ends")
            stop.set()


def main() -> None:
    """The process. Its exit code: 0 stopped, 2 it could not be opened."""
    guard_process()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        run_host(sys.stdin.buffer.read(), stop)
    except WarpfuseError as error:
        print(f"warpfuse: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
