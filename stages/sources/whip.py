"""A stream that OBS, a browser or a server sends here by WHIP: `whip:8889`, `whip:0.0.0.0:8889#token=TOKEN`.

Whoever sends posts to http://127.0.0.1:8889/whip. One sender at a time: another takes the place of the one before.
"""

import asyncio
import hmac
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.live import LiveSource, live_source
from warpfuse.stages.sources.session import Connect, Nature, ReceivedPicture
from warpfuse.stages.sources.webrtc import MOST_SDP, SDP, EventLoop, Incoming, require_aiortc
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("whip",)
CONNECTS = True

_ADDRESS = re.compile(
    r"whip:(?://)?(?:(?P<host>[0-9.]+|localhost|\[[0-9A-Fa-f:]+\]):)?(?P<port>\d{1,5})/?(?:#token=(?P<token>\S+))?"
)
_EXAMPLE = "whip:8889, or for others whip:0.0.0.0:8889#token=TOKEN"
_USUAL_RATE = Fraction(30)  # WebRTC tells none
_IDLE_S = 10.0
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Expose-Headers": "Location",
}
"""Pages of other origins may send, and need the token for it."""
PATIENCE = Patience(first=600.0, silence=15.0, least=0.1, most=0.5)
"""Somebody may have to begin to send first."""


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    found = _ADDRESS.fullmatch(url.strip())
    if found is None or not 0 <= int(found["port"]) < 65536:
        raise SourceError(f"{redact(url)}: expected {_EXAMPLE}")
    host, token = (found["host"] or "127.0.0.1").strip("[]"), found["token"] or ""
    if not token and host != "localhost" and not ip_address(host).is_loopback:
        raise SourceError(
            f"{url}: others than this machine send with a token only. Write {url}#token={secrets.token_urlsafe(12)}"
        )
    require_aiortc(url, SourceError)
    return lambda: WhipSession(host, int(found["port"]), token)


_probe, _open = live_source(_connecting)


def probe(url: str) -> VideoInfo:
    """Wait for a sender, look at its first picture, and leave. Raises SourceError, SourceLost."""
    source = open(url, None, None)
    source.close()
    return replace(source.info, frames=None)


def open(
    url: str, size: tuple[int, int] | None, frames: int | None, patience: Patience = PATIENCE,
    stop: threading.Event | None = None, near: tuple[int, int] | None = None,
) -> LiveSource:  # fmt: skip
    """Listen, and wait for the first picture. Raises SourceError, SourceLost, Stopped."""
    return _open(url, size, frames, patience, stop, near)


class WhipSession:
    """Listens for senders, until it is closed.

    address  that they post to
    """

    def __init__(self, host: str, port: int, token: str = "") -> None:
        """Raises Broken: the port cannot be had."""
        self._incoming = Incoming()
        self._token = token
        self.session = ""
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            why = f"port {port} of {host} cannot be had ({(error.strerror or 'taken').lower()})"
            raise Broken(Fault.UNABLE, why, "Name another port.") from None
        self._loop = EventLoop()
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._server.server_address[1]}/whip"
        self.nature = Nature(_USUAL_RATE, note=f"what is sent to {self.address} by WHIP is taken")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="wf:whip", daemon=True)
        self._thread.start()

    def pictures(self) -> Iterator[ReceivedPicture]:
        """Pictures of whoever sends."""
        return self._incoming.pictures()

    def interrupt(self) -> None:
        """End `pictures`."""
        self._incoming.end(Broken(Fault.SILENT, f"nobody sends to {self.address}", "Start the sender."))

    def close(self) -> None:
        """Send the sender away and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._loop.do(self._incoming.leave())
        self._loop.close()

    def opens(self, given: str) -> bool:
        """Whether an Authorization header has the token."""
        return not self._token or hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())

    def begin(self, offer: str) -> str:
        """The answer to an offer; `session` is the new session. Raises Broken."""
        answer = self._loop.do(self._incoming.receive(offer))
        self.session = secrets.token_urlsafe(12)
        return answer

    def finish(self, session: str) -> bool:
        """End a session. False: there is none of this name."""
        if not self.session or not hmac.compare_digest(session.encode(), self.session.encode()):
            return False
        self.session = ""
        self._loop.do(self._incoming.leave())
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, at: tuple[str, int], session: WhipSession) -> None:
        self.session = session
        self.address_family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
        super().__init__(at, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that leaves in the middle is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "warpfuse", ""
    timeout = _IDLE_S

    def do_POST(self) -> None:
        if not self._let_in():
            return
        if self.path.rstrip("/") != "/whip":
            self._answer(HTTPStatus.NOT_FOUND, "senders post to /whip")
        elif self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != SDP:
            self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected {SDP}")
        elif not 0 < (length := self._length()) <= MOST_SDP:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an offer has 1 to {MOST_SDP} bytes")
        else:
            self._begin(self.rfile.read(length).decode("utf-8", "replace"))

    def do_DELETE(self) -> None:
        if self._let_in():
            known = self.server.session.finish(self.path.removeprefix("/whip/"))
            self._answer(HTTPStatus.OK if known else HTTPStatus.NOT_FOUND)

    def do_OPTIONS(self) -> None:  # a browser asks before it sends to another origin
        self._answer(HTTPStatus.NO_CONTENT)

    def do_PATCH(self) -> None:
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "candidates are taken in the offer alone")

    def _begin(self, offer: str) -> None:
        try:
            answer = self.server.session.begin(offer)
        except (Broken, asyncio.CancelledError, TimeoutError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._answer(
            HTTPStatus.CREATED, answer, {"Content-Type": SDP, "Location": f"/whip/{self.server.session.session}"}
        )

    def _let_in(self) -> bool:
        # Note: a page elsewhere in the user's own browser tells its origin; programs tell none.
        if self.headers.get("Origin") not in (None, f"http://{self.headers.get('Host', '')}") and not self._has_token():
            self._answer(HTTPStatus.FORBIDDEN, "pages of other origins send with a token only")
            return False
        if not self.server.session.opens(self.headers.get("Authorization", "")):
            self._answer(HTTPStatus.UNAUTHORIZED, "a token is needed", {"WWW-Authenticate": "Bearer"})
            return False
        return True

    def _has_token(self) -> bool:
        given = self.headers.get("Authorization", "")
        return bool(given) and self.server.session.opens(given)

    def _length(self) -> int:
        told = self.headers.get("Content-Length", "0")
        return int(told) if told.isdecimal() and len(told) < 9 else MOST_SDP + 1

    def _answer(self, status: HTTPStatus, body: str = "", more: dict[str, str] | None = None) -> None:
        data = body.encode()
        more = {**_CORS, **(more or {})}
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(data)), **more}.items():
            self.send_header(name, value)
        if self.close_connection or status >= HTTPStatus.BAD_REQUEST:
            self.send_header("Connection", "close")  # a body that was not read lies before the next request
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
