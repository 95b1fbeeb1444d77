"""Take what must stay secret out of text before anyone sees it: user names, passwords, tokens, stream keys.

FFmpeg's errors hold whole addresses, and logs are pasted into public places. So everything that is shown or kept goes
through `redact`, and `guard_process` puts it under the logging layer. In doubt more is hidden than needed.
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
_PLAIN = re.compile(r"[A-Za-z0-9._~-]{0,15}|\*\*\*")  # a folder or a short name; what is longer may be a token
_NAMED = re.compile(
    r"\b(?!(?<=\$\{)secret:[A-Za-z0-9_-]+\})"  # ${secret:NAME} says where a secret is, not what it is
    r"([a-z_-]*(?:pass(?:word|wd|phrase)|pwd|token|secret|api_?key|stream_?key|stream_?id|signature|credentials?"
    r")\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:proxy-)?authorization|cookie|set-cookie)(\s*[:=]).*", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` without the secrets that addresses and headers in it carry; of an address scheme, host, port and short
    folders stay, of an RTMP address the application. Applied twice it changes nothing more. Never raises."""
    try:
        return "\n".join(redacted_line(line) for line in text.split("\n"))
    except Exception:  # noqa: BLE001  (fails closed: nothing is better than a secret)
        return WITHHELD


def redacted_line(line: str) -> str:
    """One line without secrets; may raise."""
    starts = _starts(line)
    pieces = [line[: starts[0]] if starts else line]
    # Note: up to the next address. A password may hold blanks, '@', '/' and '?': what lies before the last '@' of the
    # stretch is hidden, whatever it is.
    for start, end in pairwise([*starts, len(line)]):
        pieces.append(_address(line[start:end]))
    line = _QUOTED_ADDRESS.sub(HIDDEN, "".join(pieces))
    line = _HEADER.sub(rf"\1\2 {HIDDEN}", line)
    return _NAMED.sub(rf"\1{HIDDEN}", line)


def _starts(line: str) -> list[int]:
    """Where addresses begin. What looks like one inside another, a password that does, is a part of that: behind what
    cannot be a host, or behind a name or a colon, unless a file's address is before it: FFmpeg writes async:rtsp://."""
    starts: list[int] = []
    pattern, at = _ANY_ADDRESS, 0
    while (found := pattern.search(line, at)) is not None:
        at = found.end()
        if not (starts and _unfinished(line[starts[-1] : found.start()]) and "@" in line[at:]):
            starts.append(found.start())
            pattern = _ANY_ADDRESS if found[0].lower().startswith(_LOCAL) else _ADDRESS
    return starts


def _unfinished(stretch: str) -> bool:
    """The address ends before its host: what stands there is user and password."""
    scheme, _, rest = stretch.partition("://")
    return f"{scheme.lower()}://" not in _LOCAL and not _HOST.match(rest.lstrip("/").rpartition("@")[2])


def _address(stretch: str) -> str:
    """A stretch of text that begins with an address."""
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
    """From now on no log record, whoever writes it, and no traceback of this process shows a secret.

    Log records are redacted where they are made, so that no handler of any library gets round it; one that cannot be
    is withheld. A second call does nothing. For programs, not for libraries: it replaces the process's hooks.
    """
    make = logging.getLogRecordFactory()
    if isinstance(make, _RedactedRecords):
        return
    logging.setLogRecordFactory(_RedactedRecords(make))
    sys.excepthook = _show
    threading.excepthook = _show_thread


class _RedactedRecords:
    """A log record factory whose records hold redacted text and nothing to format."""

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
