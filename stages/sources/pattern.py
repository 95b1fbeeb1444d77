"""A synthetic source with exactly known flow, for tests, measurements and a first try without a camera."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from warpfuse.stages.errors import SourceError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sources.scene import MOTIONS, Picture, Scene, texture
from warpfuse.stages.stage import VideoInfo
from warpfuse.stages.timing import Ticker

SCHEMES: tuple[str, ...] = ("pattern",)
_SHAPE = re.compile(r"(\d+)x(\d+)(?:@([\d./]+))?|@([\d./]+)")
_RANGES = {"width": (16, 4096), "height": (16, 4096), "frames": (1, 10**9), "cut": (0, 10**9), "live": (0, 1)}
_EXAMPLE = "for example pattern:512x288@25,frames=250,motion=pan"


@dataclass(frozen=True, slots=True)
class PatternSettings:
    """The settings after `pattern:`.

    width, height  px, 16 to 4096
    fps            frames a second
    frames         number of frames
    motion         pan, rotate, zoom, objects (layers that occlude one another), still
    seed           seed of texture, shapes and paths
    cut            number of frames between hard cuts to another texture; 0: none
    live           1: real time, as a camera: a late reader gets the picture of that moment; it gets `frames` pictures
    """

    width: int = 512
    height: int = 288
    fps: Fraction = Fraction(25)
    frames: int = 250
    motion: str = "pan"
    seed: int = 0
    cut: int = 0
    live: int = 0

    @classmethod
    def parse(cls, url: str) -> "PatternSettings":
        """Parse `pattern:[WIDTHxHEIGHT][@FPS][,KEY=VALUE]...`. Raises SourceError."""
        settings = cls()
        names = [field.name for field in fields(cls)][3:]
        for part in filter(None, url.partition(":")[2].split(",")):
            key, equals, value = part.partition("=")
            shape = _SHAPE.fullmatch(part)
            try:
                if shape is not None:
                    width, height = int(shape[1] or settings.width), int(shape[2] or settings.height)
                    fps = Fraction(shape[3] or shape[4] or settings.fps)
                    settings = replace(settings, width=width, height=height, fps=fps)
                elif equals and key == "motion":
                    settings = replace(settings, motion=value)
                elif equals and key in names:
                    settings = _with(settings, key, int(value))
                else:
                    near = get_close_matches(key, names, 1)
                    hint = f"Did you mean '{near[0]}'?" if near else f"Known are a size and {', '.join(names)}."
                    raise SourceError(f"{url}: '{part}' is not understood. {hint} Write {_EXAMPLE}.")
            except (ValueError, ZeroDivisionError):
                raise SourceError(f"{url}: '{part}' is not a number. Write {_EXAMPLE}.") from None
        settings._check(url)
        return settings

    def _check(self, url: str) -> None:
        if self.motion not in MOTIONS:
            near = get_close_matches(self.motion, MOTIONS, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise SourceError(f"{url}: motion is one of {', '.join(MOTIONS)}, not '{self.motion}'.{hint}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise SourceError(f"{url}: {name} is {value}; it must be from {least} to {most}.")
        if not 0 < self.fps <= 1000:
            raise SourceError(f"{url}: the rate is {self.fps} frames a second; it must be above 0 and at most 1000.")
        if self.seed < 0:
            raise SourceError(f"{url}: seed is {self.seed}; it must be 0 or more.")


def probe(url: str) -> VideoInfo:
    """Information on the pattern. Raises SourceError for unknown settings or values."""
    return _info(PatternSettings.parse(url))


def open(url: str, size: tuple[int, int] | None, frames: int | None) -> "PatternSource":
    """Open the pattern. It is drawn at `size`, if given, so that the flow is known for the frames delivered."""
    settings = PatternSettings.parse(url)
    if size is not None:
        settings = replace(settings, width=size[0], height=size[1])
        settings._check(url)
    if frames is not None:
        settings = replace(settings, frames=min(frames, settings.frames))
    return PatternSource(settings)


class PatternSource:
    """Frames of a moving texture. A picture depends on its number and the settings only.

    clock, sleep  for a live pattern: monotonic nanoseconds; sleeps for this many seconds
    """

    def __init__(
        self,
        settings: PatternSettings,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.info = _info(settings)
        self.warning: str | None = None
        self._settings = settings
        reach = 1.3 * max(settings.width, settings.height)  # longest side of the texture in a zoomed view
        side = 1 << min(10, int(np.ceil(np.log2(reach))))
        self._base = texture(side, np.random.default_rng(settings.seed))
        self._scenes: dict[int, Scene] = {}
        self._count = 0
        self._ticker: Ticker | None = None  # made for the first picture
        self._clock, self._sleep = clock, sleep

    @property
    def skipped(self) -> int:
        """Number of pictures of a live pattern that were skipped because the reader was late."""
        return 0 if self._ticker is None else self._ticker.skipped

    def read(self) -> RawFrame | None:
        """The next frame; None at the end."""
        if self._count >= self._settings.frames:
            return None
        seq, self._count = self._count, self._count + 1
        number = self._wait() if self._settings.live else seq
        return RawFrame(Stamp(seq=seq, pts_ns=round(number / self._settings.fps * 10**9)), self.picture(number))

    def picture(self, seq: int) -> Picture:
        """Frame `seq`, uint8 RGB [h, w, 3], independent of earlier reads."""
        return self._scene(seq).picture(seq)

    def flow(self, seq: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Exact flow of frame `seq`: (flow_cur_to_prev float32 [h, w, 2] px, valid bool [h, w]).

        Where valid, picture(seq) at p equals picture(seq - 1) at p + flow. No pixel of frame 0 or after a cut is valid.
        """
        cut = self._settings.cut
        if seq == 0 or (cut and seq % cut == 0):
            height, width = self._settings.height, self._settings.width
            return np.zeros((height, width, 2), np.float32), np.zeros((height, width), bool)
        return self._scene(seq).flow(seq)

    def close(self) -> None:
        """Nothing to release but memory."""

    def _wait(self) -> int:
        """Wait until the next picture is due. Returns its number."""
        if self._ticker is None:
            self._ticker = Ticker(self._settings.fps, self._clock())
        due_ns = self._ticker.next(self._clock())
        if (left_ns := due_ns - self._clock()) > 0:
            self._sleep(left_ns / 1e9)
        return self._ticker.tick

    def _scene(self, seq: int) -> Scene:
        settings = self._settings
        number = seq // settings.cut if settings.cut else 0
        if number not in self._scenes:
            rng = np.random.default_rng((settings.seed, number))
            scene = Scene(settings.width, settings.height, settings.motion, self._base, rng, number)
            self._scenes = {number: scene}
        return self._scenes[number]


def _with(settings: PatternSettings, name: str, value: Any) -> PatternSettings:
    return replace(settings, **{name: value})


def _info(settings: PatternSettings) -> VideoInfo:
    return VideoInfo(
        settings.width, settings.height, settings.fps, 1 / settings.fps, settings.frames, live=bool(settings.live)
    )
