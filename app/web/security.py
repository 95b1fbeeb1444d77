"""Who may speak to the page: a guard in front of every request and WebSocket.

Note: what it is against. A page from elsewhere in the user's own browser can send requests to this machine; it is told
by its Origin. A name of its own that it points at this machine (DNS rebinding) makes it the same origin; that is told
by the Host it asks for. Other machines are let in with a token only.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 128 * 1024
_SENT = ("/api/uploads/", "/api/keyframe")  # with limits of their own
_COOKIE = "warpfuse_token"
_READS = frozenset({"GET", "HEAD"})
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

# Whole in itself: a style sheet would need the token too.
_ASKING = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>warpfuse: token</title>
<main>
<h1>warpfuse</h1>
<p role="alert">{why}</p>
<form method="get">
<p><label>Token <input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Open</button></p>
</form>
</main>
</html>
"""

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def new_token() -> str:
    """A new random token."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Who is let in.

    host     what the server is bound to
    allowed  more names it may be called by
    token    asked of everybody; None: of nobody
    """

    host: str = "127.0.0.1"
    allowed: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)

    def knows(self, host_header: str) -> bool:
        """Whether this server may be called so. Bound to every address, any address of numbers will do: it is a name
        that can be pointed elsewhere."""
        name = _name_of(host_header)
        if name in self.allowed or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return name in _LOOPBACK_NAMES
        return name in _LOOPBACK_NAMES or _is_address(name)

    def opens(self, given: str | None) -> bool:
        """Whether the token is right. The comparison takes the same time for every token."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


class Guard:
    """ASGI middleware. What it refuses never reaches the application."""

    def __init__(self, app: ASGIApp, access: AccessRules) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, _Bounded(receive) if _is_bounded(scope) else receive, _with_headers(send))
        elif scope["type"] == "http":
            await refusal(scope, receive, _with_headers(send))
        else:
            await receive()  # its request to connect
            await send({"type": "websocket.close", "code": 4403})

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._access.knows(host):
            name = _name_of(host)[:100]
            return _no(421, f"this server is not known as {name!r}; start it with --allow-host {name or 'NAME'}")
        if not _same_site(scope, headers, host):
            return _no(403, "this came from a page of another origin")
        if _is_bounded(scope) and _length(headers) > MOST_BYTES:
            return _no(413, f"a request has at most {MOST_BYTES} bytes")
        return self._asked_for_token(scope, headers)

    def _asked_for_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._access.token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and scope["type"] == "http" and scope["method"] in _READS:
            if not self._access.opens(given):
                return _ask(headers, "the token is wrong")
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            # The token leaves the address bar, and with it the history and every Referer.
            path = "/" + scope["path"].lstrip("/")  # two slashes in front would lead to another host
            answer = RedirectResponse(path + ("?" + rest if rest else ""), 303)
            answer.set_cookie(_COOKIE, given, httponly=True, samesite="strict", path="/")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ") or None
        if self._access.opens(_cookie(headers)) or self._access.opens(bearer):
            return None
        return _ask(headers, "a token is needed: open the address that was printed when the page was started")


class _Bounded:
    """The body of a request, up to the limit; a client that says less than it sends is cut off."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._left = receive, MOST_BYTES

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return {"type": "http.disconnect"} if self._left < 0 else message


def _is_bounded(scope: Scope) -> bool:
    return scope["type"] == "http" and not (scope["method"] == "PUT" and scope["path"].startswith(_SENT))


def _same_site(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether a request comes from this server's own page, from no page, or follows a link to the page.

    Browsers send Origin with WebSockets and with every request that changes something; other programs send none.
    """
    reads = scope["type"] == "http" and scope["method"] in _READS
    origin = headers.get("origin")
    if origin is not None and not (reads and origin == "null"):
        return urlsplit(origin).netloc.lower() == host.lower() and urlsplit(origin).scheme in ("http", "https")
    # To go to the page by a link is fine; to take its pictures into another page is not.
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "")
    return site in ("same-origin", "none") or (reads and mode == "navigate")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


def _ask(headers: Headers, why: str) -> Response:
    """A page that asks for the token, if the client accepts HTML; else one line."""
    if "text/html" not in headers.get("accept", ""):
        return _no(401, why)
    return HTMLResponse(_ASKING.format(why=f"{why[0].upper()}{why[1:]}."), 401)


def _no(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _name_of(host_header: str) -> str:
    """The name without port and brackets, lower case."""
    try:
        return (urlsplit(f"//{host_header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _length(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else MOST_BYTES + 1


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value
