"""Remove secrets from text before it is shown or stored: user names, passwords, tokens, stream keys.

Errors of FFmpeg contain whole addresses, and users paste logs into public places. So all text that is shown or stored
goes through `redact`, and `guard_process` applies it to all log records. In doubt it hides more than needed.
"""

import logging
import re
import sys
import threading
import traceback
from itertools import pairwise
from types import TracebackType
from typing import Any

HIDDEN = "***"
WITHHELD = "(a line is withheld: it could not be searched for secrets)"

_ANY_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{2,}")
_ADDRESS = re.compile(r"(?<![A-Za-z0-9+.:/@-])[A-Za-z][A-Za-z0-9+.-]*:/{2,}")
_QUOTED_ADDRESS = re.compile(r"\S*%3A%2F%2F\S*", re.IGNORECASE)  # an address inside an address, percent-encoded
_LOCAL = ("file://", "pattern://")
_END = re.compile(r"[\s'\"<>`|]")
_PUNCTUATION = ".,:;!)]}"
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST = re.compile(r"(?:\[[^\]\s]*\]|[\w.*-]+)(?::\d+)?(?![\w:-])")
_PLAIN = re.compile(r"[A-Za-z0-9._~-]{0,15}|\*\*\*")  # a folder or a short name; a longer one may be a token
_NAMED = re.compile(
    r"\b(?!(?<=\$\{)secret:[A-Za-z0-9_-]+\})"  # ${secret:NAME} says where a secret is, not what it is
    r"([a-z_-]*(?:pass(?:word|wd|phrase)|pwd|token|secret|api_?key|stream_?key|stream_?id|signature|credentials?"
    r")\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:proxy-)?authorization|cookie|set-cookie)(\s*[:=]).*", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with the secrets in its addresses and headers hidden. A second call changes nothing. Never raises.

    Scheme, host, port and short folder names of an address stay; of the path of an RTMP address only the application.
    """
    try:
        return "\n".join(redacted_line(line) for line in text.split("\n"))
    except Exception:  # noqa: BLE001  (on an error, show nothing rather than a secret)
        return WITHHELD


def redacted_line(line: str) -> str:
    """One line with its secrets hidden. May raise."""
    starts = _starts(line)
    pieces = [line[: starts[0]] if starts else line]
    # Each piece reaches to the next address. A password may contain blanks, '@', '/' and '?', so everything up to the
    # last '@' of a piece is hidden.
    for start, end in pairwise([*starts, len(line)]):
        pieces.append(_address(line[start:end]))
    line = _QUOTED_ADDRESS.sub(HIDDEN, "".join(pieces))
    line = _HEADER.sub(rf"\1\2 {HIDDEN}", line)
    return _NAMED.sub(rf"\1{HIDDEN}", line)


def _starts(line: str) -> list[int]:
    """The indices where addresses begin. A password that looks like an address begins no new one.

    It is recognised by what precedes it: text that cannot be a host, or a name or a colon. After the address of a file
    a name or a colon does not count, because FFmpeg writes async:rtsp://.
    """
    starts: list[int] = []
    pattern, at = _ANY_ADDRESS, 0
    while (found := pattern.search(line, at)) is not None:
        at = found.end()
        if not (starts and _unfinished(line[starts[-1] : found.start()]) and "@" in line[at:]):
            starts.append(found.start())
            pattern = _ANY_ADDRESS if found[0].lower().startswith(_LOCAL) else _ADDRESS
    return starts


def _unfinished(stretch: str) -> bool:
    """Whether the address breaks off before its host: it ends within user and password."""
    scheme, _, rest = stretch.partition("://")
    return f"{scheme.lower()}://" not in _LOCAL and not _HOST.match(rest.lstrip("/").rpartition("@")[2])


def _address(stretch: str) -> str:
    """Hide the secrets in a piece of text that begins with an address."""
    scheme, _, rest = stretch.partition("://")
    if f"{scheme.lower()}://" in _LOCAL:
        return stretch
    _, at, rest = rest.lstrip("/").rpartition("@")
    found = _END.search(rest)
    end = found.start() if found else len(rest)
    place, after = rest[:end], rest[end:]
    bare = place.rstrip(_PUNCTUATION)
    if bare.endswith("[") or bare.count("[") > bare.count("]"):  # an IPv6 host
        bare = place
    place, after = bare, place[len(bare) :] + after
    host = _AUTHORITY.match(place)
    assert host is not None
    path, question, _ = place[host.end() :].partition("?")
    path, hash_, _ = path.partition("#")
    hidden = f"{HIDDEN}@" if at else ""
    tail = ("?" if question else "#" if hash_ else "") and f"?{HIDDEN}"
    return f"{scheme}://{hidden}{host[0]}{_path(scheme.lower(), path)}{tail}{after}"


def _path(scheme: str, path: str) -> str:
    folders = path.split("/")
    kept = 2 if scheme.startswith("rtmp") else len(folders)  # an RTMP path is /application/key
    shown = [folder if _PLAIN.fullmatch(folder) else HIDDEN for folder in folders[:kept]]
    if len(folders) > kept:
        shown.append(HIDDEN)
    return "/".join(shown)


def guard_process() -> None:
    """Redact every log record and every traceback that this process writes from now on.

    Log records are redacted when they are made, so this covers the handlers of all libraries. A record that cannot be
    redacted is withheld. A second call does nothing. It replaces hooks of the process, so only programs call it, not
    libraries.
    """
    make = logging.getLogRecordFactory()
    if isinstance(make, _RedactedRecords):
        return
    logging.setLogRecordFactory(_RedactedRecords(make))
    sys.excepthook = _show
    threading.excepthook = _show_thread


class _RedactedRecords:
    """A log record factory. Its records hold redacted text and no arguments to format."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **named)
        try:
            record.msg = redact(record.getMessage())
            if record.exc_info:
                record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
            if record.stack_info:
                record.stack_info = redact(record.stack_info)
        except Exception:  # noqa: BLE001  (fails closed)
            record.msg, record.exc_text, record.stack_info = WITHHELD, None, None
        record.args, record.exc_info = None, None
        return record


def _show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    print(redact("".join(traceback.format_exception(kind, error, where))), file=sys.stderr, end="")


def _show_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is SystemExit:
        return
    name = failed.thread.name if failed.thread is not None else "of unknown name"
    text = "".join(traceback.format_exception(failed.exc_type, failed.exc_value, failed.exc_traceback))
    print(f"in thread {name}:\n{redact(text)}", file=sys.stderr, end="")
