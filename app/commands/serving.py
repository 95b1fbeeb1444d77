"""The control page, for the commands `warpfuse serve` and `warpfuse run --page`."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_videos_path

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.terminal import show_code

if TYPE_CHECKING:
    from warpfuse.graph.metrics.meters import Stats
    from warpfuse.web.session import PageSession

_LOOK_UP_S = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Where the page is, and for whom.

    host, port  what it is bound to; port 0: any that is free
    token       asked of every visitor; a host that others can reach makes one up without it
    allowed     more names the page may be called by
    osc         port that takes settings by OSC; None: not at all
    osc_host    address that it is taken on; of another than loopback whoever reaches it controls the run
    midi        name of the MIDI port whose knobs and pads change the run, or a part of it; None: none
    record_to   folder of recordings; None: warpfuse in the user's videos
    presets     folder of presets; None: in the user's configuration
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    allowed: tuple[str, ...] = ()
    osc: int | None = None
    osc_host: str = "127.0.0.1"
    midi: str | None = None
    record_to: Path | None = None
    presets: Path | None = None


def serve(keys: dict[str, Any], options: PageOptions, *, stop: threading.Event, say: Say, tell_url: Say) -> None:
    """Serve the page until `stop`. A run is started, and further runs can be started from the page.

    say       is called with messages, such as why the run did not start
    tell_url  is called once with the address of the page and its token, if any: not for a log

    Raises ConfigError: a port is in use, a package is missing, unusable keys.
    """
    with _page(keys, options, say, tell_url) as session:
        _started(session)
        while not stop.wait(_LOOK_UP_S):
            pass


def run_with_page(
    keys: dict[str, Any], options: PageOptions, *, stop: threading.Event, say: Say, tell_url: Say
) -> "Stats":
    """Run a graph as `warpfuse run` does, with the page until the run ends.

    Raises the errors of the run, and ConfigError for the page.
    """
    with _page(keys, options, say, tell_url) as session:
        begun = _started(session)
        while begun.is_alive() or not session.over:
            if stop.wait(_LOOK_UP_S):
                session.stop()
        return session.wait()


@contextmanager
def _page(keys: dict[str, Any], options: PageOptions, say: Say, tell_url: Say) -> Iterator["PageSession"]:
    try:
        from warpfuse.web.presets import Presets
        from warpfuse.web.security import AccessRules, is_loopback, new_token
        from warpfuse.web.server import WebServer, application
        from warpfuse.web.session import PageSession
        from warpfuse.web.source_library import SourceLibrary
    except ImportError as error:
        raise ConfigError(f"the control page needs the package {error.name}: pip install 'warpfuse[web]'") from None
    near = is_loopback(options.host)
    token = options.token or (None if near else new_token())
    record_to = options.record_to or user_videos_path() / "warpfuse"
    library = SourceLibrary(record_to / "uploads", browsing=near)
    session = PageSession(
        keys,
        record_to=record_to,
        fixed_files=not (near and is_loopback(options.osc_host)),
        uploads=library.uploads,
        say=say,
    )
    access = AccessRules(options.host, tuple(name.lower() for name in options.allowed), token)
    with ExitStack() as stack:
        if options.osc is not None:
            stack.enter_context(_osc(session, options.osc, options.osc_host, say))
        midi = None
        if options.midi is not None:
            from warpfuse.midi import controlled_by

            midi = stack.enter_context(controlled_by(options.midi, session, session.tell))
        site = application(session, Presets(options.presets), access, library, midi)
        server = WebServer(site, access, options.port)
        stack.callback(session.close)
        stack.enter_context(server)
        for url in server.urls:
            tell_url(url)
        if not near:
            show_code(server.urls[0])
        yield session


def _osc(session: "PageSession", port: int, host: str, say: Say) -> Any:
    try:
        from warpfuse.web.osc import OscServer
    except ImportError as error:
        raise ConfigError(f"--osc needs the package {error.name}: pip install 'warpfuse[osc]'") from None
    server = OscServer(session, port, say, host)
    say(f"OSC: settings are taken on {host} port {server.port}")
    return server


def _started(session: "PageSession") -> threading.Thread:
    """Start the run in a thread: opening a source may take long, and signals must be handled meanwhile."""
    thread = threading.Thread(target=_begin, args=(session,), name="wf:start", daemon=True)
    thread.start()
    return thread


def _begin(session: "PageSession") -> None:
    try:
        session.start()
    except WarpfuseError:
        return  # the session has told why, on the page too
