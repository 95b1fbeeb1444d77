"""HTTP addresses as sources. The server's answer decides how it is read: stream, clip, multipart, still or web page."""

import contextlib
from dataclasses import replace
from fractions import Fraction
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import av.error

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.container import ODD_NAMES
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.multipart import JPEG, PartsSession
from warpfuse.stages.sources.schemes import parse_rate
from warpfuse.stages.sources.session import Connect, Session
from warpfuse.stages.sources.snapshot import USUAL_RATE, SnapshotSession
from warpfuse.stages.sources.stream import NETWORK, StreamSession, checked
from warpfuse.stages.sources.variants import choose_variant
from warpfuse.stages.sources.web_request import Answer, Requests

SCHEMES: tuple[str, ...] = ("http", "https")
CONNECTS = True

_MEDIA = (
    ".mpd", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".flv", ".avi", ".ogv", ".ogg",
    ".mpg", ".mpeg", ".wmv", ".asf", ".3gp", ".gif", ".apng",
)  # fmt: skip
"""Endings of paths that FFmpeg opens without a request before, so that there is one request only."""
_PLAYLIST = ".m3u8"
_PAGES = ("text/html", "application/xhtml+xml")
_STILLS = ("image/jpeg", "image/jpg", "image/pjpeg", "image/png", "image/bmp", "image/x-ms-bmp")
_SITES = (
    "youtube.com", "youtu.be", "twitch.tv", "vimeo.com", "dailymotion.com", "tiktok.com", "facebook.com",
    "instagram.com", "kick.com", "bilibili.com", "x.com", "twitter.com",
)  # fmt: skip
_PAGE = "it is a web page, not a stream"
_TOOLS = "Give the stream's own address, as yt-dlp -g ADDRESS or streamlink --stream-url ADDRESS best prints it."
_FASTEST = 60
_LONGEST = 1 << 23  # bytes of a playlist
_TOLD = (
    av.error.HTTPClientError,
    av.error.HTTPServerError,
    av.error.ExitError,
)  # errors after which a second request would tell nothing new


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    """As `live.Connecting`. `#fps=N` at the end sets how often a still picture is fetched."""
    address, _, setting = checked(url).partition("#")
    host = urlsplit(address).hostname or ""
    if any(host == site or host.endswith(f".{site}") for site in _SITES) and _end(address) not in (*_MEDIA, _PLAYLIST):
        raise SourceError(f"{host}: {_PAGE}. {_TOOLS}")
    rate = parse_rate(redact(url), setting[4:], _FASTEST) if setting.startswith("fps=") else USUAL_RATE
    return _Web(address, patience, rate, near)


probe, open = live_source(_connecting)


def _end(address: str) -> str:
    return PurePosixPath(urlsplit(address).path).suffix.lower()


class _Web:
    """Connects to one address."""

    def __init__(self, address: str, patience: Patience, rate: Fraction, near: tuple[int, int]) -> None:
        self._address, self._rate, self._near = address, rate, near
        self._requests = Requests(address, patience.silence)
        self._options = {"protocol_whitelist": NETWORK, "rw_timeout": str(round(patience.silence * 1e6)), **ODD_NAMES}
        self._ever = False  # a connection has succeeded before

    def __call__(self) -> Session:
        session = self._known() if _end(self._address) in _MEDIA else self._asked()
        self._ever = True
        return session

    def _known(self) -> Session:
        try:
            return self._stream()
        except (av.error.FFmpegError, Broken) as error:
            silent = isinstance(error, (TimeoutError, ConnectionError, *_TOLD))
            if not silent and (page := self._page_instead()) is not None:
                raise page from None
            raise

    def _page_instead(self) -> Broken | None:
        try:
            with contextlib.closing(self._requests.ask()) as answer:
                return self._page(answer)
        except Broken:
            return None

    def _asked(self) -> Session:
        answer = self._requests.ask()
        try:
            if answer.kind.startswith("multipart/"):
                return PartsSession(answer)
            start = answer.start()
            if start.startswith(b"--"):
                return PartsSession(answer)
            if answer.kind in _STILLS or (answer.known and start.startswith(JPEG)):
                return SnapshotSession(self._requests, answer, self._rate)
            playlist = start.removeprefix(b"\xef\xbb\xbf").startswith(b"#EXTM3U")
            if not playlist and (page := self._page(answer)) is not None:
                raise page
            text = answer.whole(_LONGEST).decode("utf-8", "replace") if playlist else ""
        except BaseException:
            answer.close()
            raise
        answer.close()
        return self._playlist(answer, text) if playlist else self._stream()

    def _playlist(self, answer: Answer, text: str) -> Session:
        # With cookies FFmpeg has to fetch the playlist itself, since it gets them with that.
        chosen = choose_variant(text, answer.url, self._near) if not answer.cookies else None
        if chosen is None:
            return self._stream("hls")
        session = StreamSession(chosen.url, self._options, "hls", clips=True, near=self._near)
        session.nature = replace(session.nature, note=chosen.note)
        return session

    def _stream(self, format: str | None = None) -> StreamSession:
        return StreamSession(self._address, self._options, format, clips=True, near=self._near)

    def _page(self, answer: Answer) -> Broken | None:
        start = answer.start().lstrip().lower()
        if answer.kind not in _PAGES and not start.startswith((b"<!doctype html", b"<html")):
            return None
        # A camera that is starting may answer with a page for a while. That is assumed if it was no page before.
        return Broken(Fault.FOREIGN if self._ever else Fault.PAGE, _PAGE, _TOOLS)
