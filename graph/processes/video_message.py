"""`VideoInfo` as a message between processes."""

from fractions import Fraction

import msgspec

from warpfuse.stages.stage import VideoInfo


class Info(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `stages.stage.VideoInfo`. Fractions are text, so that they stay exact."""

    width: int
    height: int
    fps: str
    time_base: str
    frames: int | None
    path: str | None
    live: bool
    sound: bytes = b""

    @classmethod
    def of(cls, video: VideoInfo) -> "Info":
        """The message of a VideoInfo."""
        rates = str(video.fps), str(video.time_base)
        return cls(video.width, video.height, *rates, video.frames, video.path, video.live, video.sound)

    def video(self) -> VideoInfo:
        """The VideoInfo of this message."""
        rates = Fraction(self.fps), Fraction(self.time_base)
        return VideoInfo(self.width, self.height, *rates, self.frames, self.path, self.live, self.sound)
