"""Addresses as people type them: find where user and password end, and write the address as FFmpeg accepts it.

By RFC 3986 the part that may hold a password ends at the first `/`, `?` or `#`. But passwords of cameras contain these
characters, and nobody percent-encodes a password that is read off a label.
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
    """The index of the `@` after user and password; -1 if the address has neither.

    An address is read by RFC 3986 if that gives a host that is certain: an IP address, a name with a dot or localhost.
    If it gives no host, or a bare word while a certain host follows a later `@`, the password ends at that later `@`.
    """
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
    """The address with user and password as FFmpeg accepts them: percent-encoded, but for RTMP decoded.

    If every `%` in a user or password begins an escape, it counts as encoded already. A second call changes nothing,
    except for escaped escapes in an RTMP address. Raises ValueError, whose text holds no secret, for an RTMP password
    that FFmpeg cannot accept.
    """
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
    """Scheme with its `://`, user, colon, password, and the rest from the `@` on; None for an address without user."""
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
