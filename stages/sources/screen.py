"""A screen as a source: `screen:`, `screen:2`, `screen:1280x720+100+50@30`, `screen:display=:1`."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from threading import Event
from typing import Any

import mss
import numpy as np
from av.video.frame import VideoFrame
from mss.exception import ScreenShotError

from warpfuse.engine.errors import one_line
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.schemes import parse_rate
from warpfuse.stages.sources.session import Connect, Nature, ReceivedPicture
from warpfuse.stages.timing import Ticker

SCHEMES: tuple[str, ...] = ("screen",)
_AREA = re.compile(r"(?:(\d+)x(\d+)\+(\d+)\+(\d+))?(?:@([\d.]+(?:/\d+)?))?")
_FASTEST = 240  # frames a second
_REMEDY = "Set DISPLAY, or write screen:display=:N."
_EXAMPLE = "screen:2, screen:1280x720+100+50@30 (WIDTHxHEIGHT+LEFT+TOP@RATE) or screen:display=:1"


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a screen to capture.

    screen   1 for the first screen, 0 for all screens as one
    area     (left, top, width, height) px on that screen; None: the whole screen
    fps      pictures a second
    display  X11 display; None: $DISPLAY
    """

    screen: int = 1
    area: tuple[int, int, int, int] | None = None
    fps: Fraction = Fraction(30)
    display: str | None = None

    @classmethod
    def parse(cls, url: str) -> "Region":
        """Parse `screen:[N][,WxH+X+Y][@FPS][,display=D]`. Raises SourceError."""
        region = cls()
        screen, area, fps, display = region.screen, region.area, region.fps, region.display
        for part in filter(None, url.partition(":")[2].split(",")):
            found = _AREA.fullmatch(part)
            number, at, rate = part.partition("@")
            if part.startswith("display="):
                display = part.removeprefix("display=")
            elif number.isdigit():
                screen = int(number)
                fps = parse_rate(url, rate, _FASTEST) if at else fps
            elif found is not None:
                if found[1]:
                    width, height, left, top = (int(found[k]) for k in range(1, 5))
                    area = left, top, width, height
                fps = parse_rate(url, found[5], _FASTEST) if found[5] else fps
            else:
                raise SourceError(f"{url}: '{part}' is not understood. Write {_EXAMPLE}.")
        if area is not None and min(area[2:]) < 2:
            raise SourceError(f"{url}: the area is {area[2]}x{area[3]}; the least is 2x2.")
        return cls(screen, area, fps, display)


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    region = Region.parse(url)
    return lambda: ScreenSession(region)


probe, open = live_source(_connecting)


class ScreenSession:
    """Captures a region at its rate, with absolute deadlines: a late picture does not delay the next ones."""

    def __init__(self, region: Region) -> None:
        self.nature = Nature(region.fps)
        self._ended = Event()
        try:
            options: dict[str, Any] = {"display": region.display} if region.display is not None else {}
            self._mss: Any = mss.MSS(with_cursor=True, **options)
        except (ScreenShotError, OSError, ValueError) as error:
            why = one_line(error)
            raise Broken(Fault.UNABLE, f"there is no screen to take ({why})", _REMEDY) from None
        try:
            self._box = _box(region, self._mss.monitors)
        except BaseException:
            self._mss.close()
            raise

    def pictures(self) -> Iterator[ReceivedPicture | None]:
        """Yield the picture of the screen at each tick."""
        ticker = Ticker(self.nature.rate, time.monotonic_ns())
        ticker.next(time.monotonic_ns())  # the first tick is due at once
        while not self._ended.is_set():
            now_ns = time.monotonic_ns()
            try:
                shot = self._mss.grab(self._box)
            except ScreenShotError as error:
                raise Broken(Fault.NETWORK, f"the screen cannot be read ({error})", "") from None
            bgra = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
            yield ReceivedPicture(VideoFrame.from_ndarray(np.ascontiguousarray(bgra[..., :3]), format="bgr24"), now_ns)
            due_ns = ticker.next(time.monotonic_ns())
            self._ended.wait(max(0, due_ns - time.monotonic_ns()) / 1e9)
        raise Broken(Fault.ENDED, "the screen is no longer taken", "")

    def interrupt(self) -> None:
        """End `pictures`."""
        self._ended.set()

    def close(self) -> None:
        """Close the connection to the screen."""
        self._mss.close()


def _box(region: Region, screens: list[dict[str, int]]) -> dict[str, int]:
    """The area to capture, in coordinates of all screens. Raises Broken if it is not on the screen."""
    if region.screen >= len(screens):
        raise Broken(Fault.UNABLE, f"there is no screen {region.screen}: 1 to {len(screens) - 1}, or 0 for all", "")
    screen = screens[region.screen]
    left, top, width, height = region.area or (0, 0, screen["width"], screen["height"])
    if left + width > screen["width"] or top + height > screen["height"]:
        asked, whole = f"{width}x{height}+{left}+{top}", f"{screen['width']}x{screen['height']}"
        raise Broken(Fault.UNABLE, f"the area {asked} is not all on the screen, which has {whole}", "")
    return {"left": screen["left"] + left, "top": screen["top"] + top, "width": width, "height": height}
