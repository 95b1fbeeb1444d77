"""HTTP requests with the account in the address, and their faults.

FFmpeg makes its own requests for what it can read. These are for the rest: to find out what an address is by the
answer, for multipart and still pictures, and for web pages.
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
_AGENT = "Lavf/" + ".".join(map(str, av.library_versions["libavformat"]))  # FFmpeg's, so that both get the same answer
_Reply = http.client.HTTPResponse


class Requests:
    """Requests one address, any number of times. One thread at a time.

    A refused password is not sent again, since some cameras lock the account.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        """url: without the settings after its `#`. timeout_s: limit for connecting and for each read."""
        self._account = account_of(url)
        parts = urlsplit(for_ffmpeg(url))
        self._place = parts.netloc
        place = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit(parts._replace(netloc=place, path=quote(parts.path, _SAFE), fragment=""))
        self._timeout_s = timeout_s
        self._login: _Login | None = None
        # Cameras have self-signed certificates. FFmpeg does not verify them either.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def ask(self) -> "Answer":
        """Make a request. Returns the answer, whose body is not read yet. Raises Broken."""
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
                # Not repeated after a redirection, whose target must not get the password.
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
    """The answer of a web server.

    url      its URL after redirections, with the account if the host is the same
    kind     its Content-Type in lower case, without parameters
    known    it has a Content-Length
    cookies  it sets cookies
    """

    def __init__(self, reply: _Reply, url: str) -> None:
        self._reply, self.url = reply, url
        self.cookies = "Set-Cookie" in reply.headers
        self.kind = reply.headers.get_content_type() if reply.headers.get("Content-Type") else ""
        self.known = reply.headers.get("Content-Length") is not None

    @property
    def boundary(self) -> str:
        """The boundary of a multipart answer; "": not given."""
        return str(self._reply.headers.get_param("boundary", "") or "")

    def start(self) -> bytes:
        """The first bytes, which can still be read. Raises Broken."""
        with _reading():
            return self._reply.peek(_PEEKED)[:_PEEKED]

    def read(self, most: int) -> bytes:
        """Read what has arrived, at most `most` bytes; b"" at the end. Raises Broken."""
        with _reading():
            return self._reply.read1(most)

    def whole(self, most: int) -> bytes:
        """Read everything, at most `most` bytes. Raises Broken."""
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
    """The authentication that a server asks for (Basic, RFC 7617; Digest, RFC 7616).

    wanted  the server's Digest challenge; None: Basic
    count   number of requests made with its nonce
    """

    account: tuple[str, str]
    wanted: dict[str, str] | None
    count: int = 0

    def header(self, target: str) -> str:
        user, password = self.account
        if self.wanted is None:
            return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        wanted = self.wanted
        algorithm = wanted.get("algorithm", "MD5")
        hash_of = _HASHES[algorithm.lower().removesuffix("-sess")]

        def hashed(*parts: str) -> str:
            return hash_of(":".join(parts).encode()).hexdigest()

        self.count += 1
        count, cnonce, nonce = f"{self.count:08x}", os.urandom(8).hex(), wanted["nonce"]
        secret = hashed(user, wanted.get("realm", ""), password)
        if algorithm.lower().endswith("-sess"):
            secret = hashed(secret, nonce, cnonce)
        request = hashed("GET", target)
        fields = {"username": user, "realm": wanted.get("realm", ""), "nonce": nonce, "uri": target}
        unquoted = f"algorithm={algorithm}"
        if "auth" in [each.strip() for each in wanted.get("qop", "").split(",")]:
            fields |= {"cnonce": cnonce, "response": hashed(secret, nonce, count, cnonce, "auth", request)}
            unquoted += f", qop=auth, nc={count}"
        else:
            fields["response"] = hashed(secret, nonce, request)
        if "opaque" in wanted:
            fields["opaque"] = wanted["opaque"]
        escaped = {key: value.replace("\\", r"\\").replace('"', r"\"") for key, value in fields.items()}
        return "Digest " + ", ".join([f'{key}="{value}"' for key, value in escaped.items()] + [unquoted])


def _login(account: tuple[str, str], challenges: list[str]) -> _Login | None:
    """The best authentication among a server's challenges; None if none is supported."""
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
