"""The process of a stream host of a cluster: started by its warden, in a session of its own, and ended by its stop.

With `warm` as an argument it is no host, but fetches and builds what a host will need, and ends. What it is opened
with comes as JSON on its standard input: an argument would be shown to every user of the machine.
"""

import contextlib
import hashlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from warpfuse.cluster.bundle_store import PINNED, BundleStore, folder_origin, head_origin
from warpfuse.cluster.host_server import ADDRESS, HostServer
from warpfuse.cluster.leased_host import LeasedHost, lease_clock
from warpfuse.cluster.secret_files import SecretFiles
from warpfuse.cluster.tokens import reading_token
from warpfuse.cluster.warden import SPEC_DIGEST, HostSpec, Warmed, Warming, warmed_file
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.files import write_whole
from warpfuse.engine.open import choose_backend, upgrade_of
from warpfuse.engine.redact import guard_process, redact
from warpfuse.graph.control.run_directory import RunDirectory
from warpfuse.graph.control.server import ControlServer, served
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.runtime.streams_run import StreamsRun, open_streams

_TICK_S = 0.1
_TRIAL_FRAMES = 4


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
            read_streams({**_fetched(spec), "host": True}),
            undo,
            say=say,
            stop=stop,
            beside=lambda name, stream: served(name, stream, lambda told: say(f"stream {name} is {told}")),
        )
        leased = LeasedHost(run, secrets, stop)
        undo.enter_context(ControlServer(folder.path, run, leased))
        undo.enter_context(_served(spec, folder.path, run, say))
        run.start()
        ticking = threading.Thread(target=_tick, args=(leased, spec.orphan_s, stop, say), name="wf:lease", daemon=True)
        ticking.start()
        run.wait()
        leased.finish()  # what a stream that is being opened has made goes with it


@contextlib.contextmanager
def _served(spec: HostSpec, folder: Path, run: StreamsRun, say: Callable[[str], None]) -> Iterator[None]:
    """Serve figures and pictures within the block, and tell where in the host's folder."""
    if not spec.address:
        yield
        return
    try:
        server = HostServer(spec.address, run, reading_token(Path(spec.token)))
    except OSError as error:
        raise ConfigError(f"figures cannot be served on {spec.address}: {error.strerror}") from None
    with server:
        write_whole(folder / ADDRESS, server.where.encode())
        say(f"figures and pictures are served on {server.where}")
        yield


class _WarmOrder(msgspec.Struct, frozen=True):
    spec: HostSpec
    order: Warming


def warm(given: bytes, stop: threading.Event) -> None:
    """Fetch the bundle and open its networks at each size, so that what takes long is done once for all hosts.

    What became of it is in `warmed_file`. given: a HostSpec and a Warming as JSON
    """
    told = msgspec.json.decode(given, type=_WarmOrder)
    host = told.spec.name.removesuffix("-warm")
    error = ""
    with RunDirectory(told.spec.name), contextlib.ExitStack() as undo:
        try:
            keys = _fetched(told.spec)
            run = open_streams(read_streams(_trial(keys, told.order.sizes)), undo, stop=stop)
            run.start()
            run.wait()
        except WarpfuseError as wrong:
            error = redact(str(wrong))
        if not stop.is_set():
            write_whole(warmed_file(host), msgspec.json.encode(Warmed(told.order.attempt, error)), mode=0o600)


def _trial(keys: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """A few frames of each size. A backend that a host builds while it runs on another is built now."""
    device = str(keys.get("device", "cpu"))
    asked = str(keys.get("backend", "auto"))
    built = upgrade_of(asked, choose_backend(asked, device)[0], device) if device.startswith("cuda") else None
    few = f"@25,frames={_TRIAL_FRAMES}"
    streams: dict[str, Any] = {
        f"of{w}x{h}": {"source": f"pattern:{w}x{h}{few}", "sinks": ["null:"], "size": [w, h]} for w, h in sizes
    }
    usual = {"usual": {"source": f"pattern:512x288{few}", "sinks": ["null:"]}}
    return {**keys, **({"backend": built} if built else {}), "streams": streams or usual}


def _fetched(spec: HostSpec) -> dict[str, Any]:
    """The keys with the folder of the bundle, which is fetched if it is named by its sha256. Raises BundleError."""
    named = PINNED.fullmatch(str(spec.keys.get("bundle", "")))
    if named is None:
        return dict(spec.keys)
    store, sha256 = BundleStore(), named["sha256"]
    if not spec.store.startswith("http://"):
        origin = folder_origin(Path(spec.store) / sha256)
    else:
        origin = head_origin(spec.store, sha256, reading_token(Path(spec.token)))
    return {**spec.keys, "bundle": str(store.fetch(named[0], origin, spec.store))}


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
    work = warm if sys.argv[1:] == ["warm"] else run_host
    try:
        work(sys.stdin.buffer.read(), stop)
    except WarpfuseError as error:
        print(f"warpfuse: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
