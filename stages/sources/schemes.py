"""Finding the module for a URL by its scheme: `pattern:...` needs a module with "pattern" in SCHEMES, a path "file"."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from warpfuse.engine.errors import BadInput
from warpfuse.engine.redact import HIDDEN
from warpfuse.engine.registry import load_module, module_names
from warpfuse.stages.errors import SourceError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")

_BARE = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){3}|localhost|(?:[\w-]+\.)+(?:com|org|net|tv|be))(?::\d+)?(?:[/?#]|$)")
_VIDEO4LINUX = 81  # Linux's major number of video devices

LIVE_SCHEMES = ("camera", "rtsp", "rtmp", "srt", "screen", "ndi")
"""Schemes of sources that are always live."""


def scheme_of(url: str) -> str:
    """The scheme of `url`, in lower case: "file" for a path, also with a colon in it; "camera" for any name of a video
    device in /dev."""
    if url.startswith(("/dev/video", "/dev/v4l/")) or _is_video_device(url.partition(",")[0]):
        return "camera"
    found = _SCHEME.match(url)
    if found is None or _is_there(url):
        return "file"
    return found[1].lower()


def name_of(url: str) -> str:
    """The name in `ndi:NAME`, `spout:NAME` or `syphon:NAME`; "" where there is none."""
    return url.partition(":")[2].strip().removeprefix("//")


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # longer than a file name may be, as some addresses with tokens are
        return False


def _is_video_device(path: str) -> bool:
    """The path is a video device, or a link to one that udev made under another name."""
    if sys.platform == "win32" or not path.startswith("/dev/"):
        return False
    try:
        about = Path(path).stat()
    except OSError:
        return False
    return stat.S_ISCHR(about.st_mode) and os.major(about.st_rdev) == _VIDEO4LINUX


def parse_rate(url: str, text: str, most: int) -> Fraction:
    """Parse a frame rate, as 25 or 30000/1001. Raises SourceError unless it is in (0, most]."""
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= most:
        raise SourceError(f"{url}: the rate is '{text}'; it must be above 0 and at most {most} frames a second.")
    return fps


def path_of(url: str) -> Path:
    """The file that a path or `file://` URL names. `~` is the home folder."""
    if url.lower().startswith("file:") and not _is_there(url):
        url = unquote(urlsplit(url).path)
    return Path(url).expanduser()


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """The modules of a package, and of its entry points, that define SCHEMES, by name."""
    for name in module_names(package):
        module = load_module(package, name)
        if hasattr(module, "SCHEMES"):
            yield module


def _shown(url: str) -> str:
    """The URL for messages. Without ://, `redact` would not find a password in it, so the part before @ is hidden."""
    account, at, place = url.rpartition("@")
    return f"{HIDDEN}@{place}" if at and "://" not in account else url


def _is_bare_address(url: str) -> bool:
    """The URL looks like a network address whose `http://` or `rtsp://` is missing."""
    return "://" not in url and not _is_there(url) and _BARE.match(url.rpartition("@")[2]) is not None


def module_for(package: ModuleType, url: str, noun: str, error: type[BadInput]) -> ModuleType:
    """The module of `package` for `url`. Raises `error`, with the known schemes, when there is none.

    Of several modules with the scheme, the one whose `serves(url)` is True, else the one without such a function.
    """
    scheme = scheme_of(url)
    shown = _shown(url)
    if _is_bare_address(url):
        raise error(f"{shown}: an address begins with its kind, as in http://{shown} or rtsp://{shown}")
    known: list[str] = []
    usual: ModuleType | None = None
    for module in modules(package):
        known.extend(module.SCHEMES)
        if scheme in module.SCHEMES:
            serves = getattr(module, "serves", None)
            if serves is not None and serves(url):
                return module
            usual = usual if serves is not None else module
    if usual is not None:
        return usual
    if "@" in url:  # the text before the first colon is a user name, not a scheme
        raise error(f"{shown}: no {noun} of this kind is known. An address begins with its kind, as in rtsp://{shown}")
    near = get_close_matches(scheme, known, 1)
    meant = f" Did you mean '{near[0]}:'?" if near else ""
    listed = ", ".join(f"{name}:" for name in sorted({*known}) if name != "file")
    raise error(f"{url}: no {noun} of the kind '{scheme}:' is known. Known are a path and {listed}.{meant}")
