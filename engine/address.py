"""Addresses as people type them: where user and password end, whatever characters they hold, and how FFmpeg takes them.

By RFC 3986 the first `/`, `?` or `#` ends what may hold a password. Cameras have passwords with these in them, and
nobody percent-encodes a password that is read off a label.
"""

import re
from urllib.parse import quote, unquote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{2,}")
_AUTHORITY = re.compile(r"[^/?#]*")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.~%-]+)?\]|[\w.-]+)(?::\d{0,5})?(?=[/?#]|$)")
_SURE = re.compile(r"\[.*\]|localhost|\d{1,3}(?:\.\d{1,3}){3}|(?:[\w-]+\.)+[^\W\d_]{2,}\.?", re.IGNORECASE)
_ESCAPED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_KEPT = "!$&'()*+,;=~"


def account_end(url: str) -> int:
    """The index of the `@` behind user and password; -1 if the address has neither.

    An address that RFC 3986 understands means what it says there. If no host can stand where that puts one, or only a
    bare word where one that is surely a host (an IP address, a name with a dot, localhost) follows a later `@`, the
    password goes up to that `@`."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return -1
    start = scheme.end()
    authority = _AUTHORITY.match(url, start)
    assert authority is not None
    usual = url.rfind("@", start, authority.end())
    host = _PLACE.match(url, usual + 1 if usual >= 0 else start)
    if ":" not in authority[0] or (host is not None and _SURE.fullmatch(host[1])):
        return usual
    later = [at.start() for at in re.finditer("@", url[authority.end() :])]
    places = {at + authority.end(): _PLACE.match(url, at + authority.end() + 1) for at in later}
    sure = [at for at, place in places.items() if place is not None and _SURE.fullmatch(place[1])]
    possible = [at for at, place in places.items() if place is not None]
    if sure:
        return sure[0]
    return possible[-1] if host is None and possible else usual


def for_ffmpeg(url: str) -> str:
    """The address with user and password as FFmpeg takes them: percent-encoded, for RTMP as they are.

    A user or password in which every `%` begins an escape is taken as encoded already. Applied twice it changes
    nothing more, but for escapes of escapes in an RTMP address. Raises ValueError, without a secret in it, for an RTMP
    password that FFmpeg cannot be given."""
    parts = _with_account(url)
    if parts is None:
        return url
    scheme, user, colon, password, rest = parts
    if scheme.lower().startswith("rtmp"):
        account = _plain(user) + colon + _plain(password)
        if re.search(r"[/?#]", account):
            raise ValueError(
                "FFmpeg takes no '/', '?' or '#' in a user name or password of RTMP. Take another password."
            )
    else:
        account = _encoded(user) + colon + _encoded(password)
    return f"{scheme}{account}{rest}"


def account_of(url: str) -> tuple[str, str] | None:
    """User and password of an address, decoded; None if it has none."""
    parts = _with_account(url)
    return None if parts is None else (_plain(parts[1]), _plain(parts[3]))


def _with_account(url: str) -> tuple[str, str, str, str, str] | None:
    """Scheme with what ends it, user, colon, password, and the rest from the @ on; None for an address without them."""
    at = account_end(url)
    if at < 0:
        return None
    scheme = _SCHEME.match(url)
    assert scheme is not None
    return scheme[0], *url[scheme.end() : at].partition(":"), url[at:]


def _encoded(text: str) -> str:
    return quote(text, safe=_KEPT + "%" if _ESCAPED.fullmatch(text) else _KEPT)


def _plain(text: str) -> str:
    return unquote(text) if _ESCAPED.fullmatch(text) else text
