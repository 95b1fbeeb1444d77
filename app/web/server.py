"""The server of the page: uvicorn in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import psutil
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.redact import redact
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.live_settings import NeedsRestart
from warpfuse.midi import MidiInput
from warpfuse.version import __version__
from warpfuse.web.presets import Presets
from warpfuse.web.preview import Peers
from warpfuse.web.routes import STATIC, interface, know_presets
from warpfuse.web.security import AccessRules, Guard
from warpfuse.web.session import NotRunning, PageSession
from warpfuse.web.source_library import SourceLibrary

_SEND_BYTES = 1 << 17  # of the kernel for one viewer: a stream of pictures fills it, and what lies there is late
_GRACE_S = 1  # for open streams when the server ends


def application(
    session: PageSession,
    presets: Presets,
    access: AccessRules,
    library: SourceLibrary,
    midi: MidiInput | None = None,
) -> FastAPI:
    """The page as an ASGI application. The caller closes the session."""
    peers = Peers(session.pictures)
    know_presets(session, presets)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await peers.close()

    # The interactive pages that come with FastAPI load scripts from elsewhere; /docs is our own.
    app = FastAPI(title="warpfuse", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.include_router(interface(session, presets, peers, library, midi))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Guard, access=access)
    app.add_exception_handler(WarpfuseError, _told)
    app.add_exception_handler(RequestValidationError, _misread)
    return app


async def _told(_: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, (NeedsRestart, NotRunning)) else 422
    return JSONResponse({"error": redact(str(error)), "restart": isinstance(error, NeedsRestart)}, status)


async def _misread(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return JSONResponse({"error": f"{where}: {first['msg']}" if where else str(first["msg"]), "restart": False}, 422)


class WebServer:
    """The page on a port, served from a thread. A context manager.

    urls  where it is, with the token if there is one; bound to every address, by each that others can reach first
    """

    def __init__(self, app: FastAPI, access: AccessRules, port: int) -> None:
        """Bind the port. Raises ConfigError if it is taken or not permitted."""
        self._access = access
        self._socket = _bound(access.host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # addresses may carry the token
            ws="websockets-sansio",
            ws_max_size=1024,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="wf:server", daemon=True)

    @property
    def urls(self) -> list[str]:
        """Addresses of the page for browsers, at least one."""
        everywhere = self._access.host in ("0.0.0.0", "::")
        hosts = [*addresses_of_this_machine(), "localhost"] if everywhere else [self._access.host]
        token = f"?token={self._access.token}" if self._access.token else ""
        return [f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{token}" for host in hosts]

    @property
    def url(self) -> str:
        """Address of the page for a browser on this machine."""
        return self.urls[-1]

    def __enter__(self) -> "WebServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve([self._socket]))


def addresses_of_this_machine() -> list[str]:
    """IPv4 addresses of this machine on interfaces that are up, without loopback and link-local ones."""
    up = {name for name, about in psutil.net_if_stats().items() if about.isup}
    told = [one for name, addresses in psutil.net_if_addrs().items() if name in up for one in addresses]
    found = [one.address for one in told if one.family == socket.AF_INET]
    return [address for address in found if not (ip_address(address).is_loopback or ip_address(address).is_link_local)]


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)  # accepted sockets inherit it
        bound.bind((host, port))
        bound.listen()  # who was told the address waits for the server instead of being refused
    except (OSError, OverflowError) as error:
        bound.close()
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise ConfigError(f"the page cannot be served on {host} port {port}: {reason}. Try another --port") from None
    return bound
