"""`window:` is not built in: OpenCV is installed without windows. The error says what to use instead."""

from typing import NoReturn

from warpfuse.stages.errors import SinkError
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("window",)


def check(url: str, source: str | None = None) -> NoReturn:
    """Raise SinkError: always."""
    raise SinkError(f"{url}: there are no windows here. Use --sink page:8080 and open http://127.0.0.1:8080/view")


def open(url: str, info: VideoInfo, size: tuple[int, int], sound_from: str | None = None) -> NoReturn:
    """Raise SinkError: always."""
    check(url)
