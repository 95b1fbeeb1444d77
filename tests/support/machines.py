"""Minimal stages, sources and sinks for tests."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo

PICTURE = np.zeros((1, 1, 3), np.uint8)
INFO = VideoInfo(16, 16, Fraction(25), Fraction(1, 25))


@dataclass
class Counting:
    """A source of `frames` small pictures, each filled with its number."""

    frames: int
    warning: str | None = None
    info: VideoInfo = INFO
    closed: bool = False
    seq: int = 0

    def read(self):
        if self.seq == self.frames:
            return None
        self.seq += 1
        return RawFrame(
            Stamp(self.seq - 1, (self.seq - 1) * 40_000_000), np.full((16, 16, 3), self.seq % 256, np.uint8)
        )

    def close(self):
        self.closed = True


@dataclass
class Passing:
    """Returns the stamp of its first input, and records its inputs."""

    inputs: tuple = ("frame",)
    fails_at: int | None = None
    seen: list = field(default_factory=list)
    settings: list = field(default_factory=list)
    closed: bool = False

    def __call__(self, **inputs):
        frames = list(inputs.values())
        stamp = frames[0].stamp
        self.seen.append(tuple(None if f is None else f.stamp.seq for f in frames))
        if stamp.seq == self.fails_at:
            raise RuntimeError("out of paint")
        return RawFrame(stamp, PICTURE)

    def held(self, **inputs):
        return self(**inputs)

    def update(self, settings):
        self.settings.append((len(self.seen), settings))

    def close(self):
        self.closed = True


@dataclass
class Keeping:
    """A sink that keeps the numbers of its frames."""

    fails_at: int | None = None
    seen: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    complete: bool | None = None

    def write(self, frame):
        if frame.stamp.seq == self.fails_at:
            raise OSError(28, "No space left on device")
        self.seen.append(frame.stamp.seq)

    def close(self, complete):
        self.complete = complete
