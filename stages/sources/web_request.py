"""Ask a web server for what an address names, with the account in the address, and tell why it gives nothing.

FFmpeg asks for what it can read by itself. This is for the rest: what only the answer's head tells apart, pictures that
come in parts or one at a time, and web pages.
"""

import contextlib
import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import av

from warpfuse.engine.address import account_of, for_ffmpeg
from warpfuse.stages.sources.faults import Broken, Fault, broken

_HASHES: dict[str, Callable[[bytes], "hashlib._Hash"]] = {"md5": hashlib.md5, "sha-256": hashlib.sha256}
_SAFE = "%/:=&?~+!$,;'@()*[]|"
_PEEKED = 512
_AGENT = "Lavf/" + ".".join(map(str, av.library_versions["libavformat"]))  # as FFmpeg: both are to be answered alike
_Reply = http.client.HTTPResponse


class Requests:
    """Asks for one address, any number of times. One thread at a time.

    A password that is refused is sent once: some cameras lock the account."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """url: without the settings behind its `#`. timeout_s: of connecting, and of each read."""
        self._account = account_of(url)
        parts = urlsplit(for_ffmpeg(url))
        self._place = parts.netloc
        place = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit(parts._replace(netloc=place, path=quote(parts.path, _SAFE), fragment=""))
        self._timeout_s = timeout_s
        self._login: _Login | None = None
        # Nobody has signed a camera's certificate but itself; FFmpeg does not ask for more either.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def ask(self) -> "Answer":
        """The answer, its body still to be read. Raises Broken."""
        try:
            reply = self._ask()
            return Answer(reply, self._with_account(reply.url))
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(error.code) from None
        except urllib.error.URLError as error:
            raise broken(error.reason if isinstance(error.reason, Exception) else OSError(0, "no connection")) from None
        except (OSError, EOFError) as error:
            raise broken(error) from None
        except (http.client.HTTPException, ValueError) as error:
            raise Broken(Fault.FOREIGN, f"it does not speak HTTP ({type(error).__name__})") from None

    def _with_account(self, url: str) -> str:
        parts = urlsplit(url)
        here = parts.netloc == urlsplit(self._url).netloc
        return urlunsplit(parts._replace(netloc=self._place)) if here else url

    def _ask(self) -> _Reply:
        url, told = self._url, False
        while True:
            request = urllib.request.Request(url, headers={"User-Agent": _AGENT, "Accept": "*/*"})
            if self._login is not None:
                # Of this request alone: where it is sent on to, the password has no business.
                request.add_unredirected_header("Authorization", self._login.header(request.selector))
            try:
                reply: _Reply = self._opener.open(request, timeout=self._timeout_s)
                return reply
            except urllib.error.HTTPError as error:
                here = urlsplit(error.url).netloc == urlsplit(self._url).netloc
                if error.code != 401 or self._account is None or told or not here:
                    raise
                self._login = _login(self._account, error.headers.get_all("WWW-Authenticate", []))
                url, told = error.url, True
                error.close()
                if self._login is None:
                    raise Broken(Fault.UNABLE, "it asks for a kind of password that is not known here", "") from None


class Answer:
    """What a web server sends.

    url      where it came from, with the account if that is meant for it
    kind     its Content-Type, lower-case, without parameters
    known    its length is told
    cookies  it wants to be sent some from now on
    """

    def __init__(self, reply: _Reply, url: str) -> None:
        self._reply, self.url = reply, url
        self.cookies = "Set-Cookie" in reply.headers
        self.kind = reply.headers.get_content_type() if reply.headers.get("Content-Type") else ""
        self.known = reply.headers.get("Content-Length") is not None

    @property
    def boundary(self) -> str:
        """What parts the parts of a multipart answer; empty: not told."""
        return str(self._reply.headers.get_param("boundary", "") or "")

    def start(self) -> bytes:
        """The first bytes, which stay to be read. Raises Broken."""
        with _reading():
            return self._reply.peek(_PEEKED)[:_PEEKED]

    def read(self, most: int) -> bytes:
        """Bytes as they come, at most so many; none at the end. Raises Broken."""
        with _reading():
            return self._reply.read1(most)

    def whole(self, most: int) -> bytes:
        """All of it, at most so many bytes. Raises Broken."""
        with _reading():
            return self._reply.read(most)

    def close(self) -> None:
        """Close the connection."""
        self._reply.close()


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError) as error:
        raise broken(error) from None
    except (http.client.HTTPException, ValueError):
        raise Broken(Fault.ENDED, "the other side ended the answer before its end") from None


def _refused(code: int) -> Broken:
    if code in (401, 403):
        return Broken(Fault.DENIED, "the user name or password was refused")
    if code in (404, 410):
        return Broken(Fault.UNKNOWN, "there is no such stream")
    return Broken(Fault.NETWORK, f"the server answers {code}", "Check with a browser what the address gives.")


@dataclass(slots=True)
class _Login:
    """How a server wants the password (RFC 7617, RFC 7616). count: requests made with its `nonce`."""

    account: tuple[str, str]
    wanted: dict[str, str] | None
    count: int = 0

    def header(self, target: str) -> str:
        user, password = self.account
        if self.wanted is None:
            return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        wanted = self.wanted
        algorithm = wanted.get("algorithm", "MD5")
        made = _HASHES[algorithm.lower().removesuffix("-sess")]

        def hashed(*parts: str) -> str:
            return made(":".join(parts).encode()).hexdigest()

        self.count += 1
        count, own, nonce = f"{self.count:08x}", os.urandom(8).hex(), wanted["nonce"]
        secret = hashed(user, wanted.get("realm", ""), password)
        if algorithm.lower().endswith("-sess"):
            secret = hashed(secret, nonce, own)
        asked = hashed("GET", target)
        told = {"username": user, "realm": wanted.get("realm", ""), "nonce": nonce, "uri": target}
        bare = f"algorithm={algorithm}"
        if "auth" in [each.strip() for each in wanted.get("qop", "").split(",")]:
            told |= {"cnonce": own, "response": hashed(secret, nonce, count, own, "auth", asked)}
            bare += f", qop=auth, nc={count}"
        else:
            told["response"] = hashed(secret, nonce, asked)
        if "opaque" in wanted:
            told["opaque"] = wanted["opaque"]
        escaped = {key: value.replace("\\", r"\\").replace('"', r"\"") for key, value in told.items()}
        return "Digest " + ", ".join([f'{key}="{value}"' for key, value in escaped.items()] + [bare])


def _login(account: tuple[str, str], challenges: list[str]) -> _Login | None:
    """The best of the ways that a server offers; None: none of them is known here."""
    basic = None
    for challenge in challenges:
        scheme, _, rest = challenge.strip().partition(" ")
        if scheme.lower() == "digest":
            wanted = urllib.request.parse_keqv_list(
                [each for each in urllib.request.parse_http_list(rest) if "=" in each]
            )
            if wanted.get("algorithm", "MD5").lower().removesuffix("-sess") in _HASHES and "nonce" in wanted:
                return _Login(account, wanted)
        elif scheme.lower() == "basic":
            basic = _Login(account, None)
    return basic
