"""A sink for a browser or OBS's Browser source: `page:8080` serves http://127.0.0.1:8080/view."""

import re
from urllib.parse import urlsplit

from warpfuse.stages.errors import SinkError
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.fanout import Fanout
from warpfuse.stages.sinks.page_server import PictureServer
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("page", "http")

_EXAMPLE = "page:8080 or http://127.0.0.1:8080/view"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check(url: str, source: str | None = None) -> None:
    """Raise SinkError for an invalid address, an address of another machine, or a port in use."""
    PictureServer.bound(_port(url), url).close()


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> "PageSink":
    """Start the server. Raises SinkError."""
    return PageSink(url, info, size)


class PageSink:
    """Serves the newest frame to viewers; slow viewers skip frames. A file is played in real time."""

    def __init__(self, url: str, info: VideoInfo, size: tuple[int, int]) -> None:
        self._playback = Playback(info)
        self.fanout = Fanout(size)
        self.server = PictureServer(_port(url), url, self.fanout)

    @property
    def notes(self) -> list[str]:
        """The address of the page and the number of pictures encoded."""
        return [f"{self.server.address}: {self.fanout.encoded} pictures encoded for viewers"]

    def write(self, frame: RawFrame) -> None:
        """Show the frame on the page. Never waits for a viewer."""
        self._playback.due(frame)
        self.fanout.put(frame.rgb)

    def close(self, complete: bool) -> None:
        """Disconnect the viewers and free the port. A second call does nothing."""
        self._playback.close()
        self.fanout.close()
        self.server.close()


def _port(url: str) -> int:
    """The port in `page:8080` or `http://127.0.0.1:8080/view`; 0 lets the system choose."""
    short = re.fullmatch(r"page:/*(\d+)", url.strip())
    try:
        parts = urlsplit(url)
        host, port = (_LOOPBACK[0], int(short[1])) if short else (parts.hostname, parts.port)
    except ValueError:
        host = port = None
    if host is None or port is None or port > 65535 or (not short and parts.path.rstrip("/") not in ("", "/view")):
        raise SinkError(f"{url}: not a page. Write {_EXAMPLE}.")
    if host not in _LOOPBACK:
        raise SinkError(f"{url}: a page is served on this machine only, not on {host}. Write {_EXAMPLE}.")
    return port
