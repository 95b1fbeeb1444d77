"""What is known of a source, as one process tells another."""

from fractions import Fraction

import msgspec

from warpfuse.stages.stage import VideoInfo


class Info(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """stages.stage.VideoInfo; rates and units as text, exactly."""

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
        """As it travels."""
        rates = str(video.fps), str(video.time_base)
        return cls(video.width, video.height, *rates, video.frames, video.path, video.live, video.sound)

    def video(self) -> VideoInfo:
        """As it was."""
        rates = Fraction(self.fps), Fraction(self.time_base)
        return VideoInfo(self.width, self.height, *rates, self.frames, self.path, self.live, self.sound)
