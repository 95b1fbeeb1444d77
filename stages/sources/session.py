"""What a kind of live source has to give: a way to connect, and pictures until it breaks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from av.video.frame import VideoFrame

_USUAL_RATE = Fraction(25)  # of streams that tell none
_SLOWEST = Fraction(1, 3600)  # so slow is no video, but damage
_FASTEST = 240  # what claims more tells its clock's rate instead


@dataclass(frozen=True, slots=True)
class Nature:
    """What is known of a stream once it is connected.

    rate          frames a second
    pixel_aspect  of the stream, None for square or unknown
    bursts        pictures come many at a time and are to be shown at their own spacing
    finite        a clip: it has an end, and none of its frames may be lost
    note          what was chosen for the user, in one line without secrets; empty: nothing to say
    """

    rate: Fraction
    pixel_aspect: Fraction | None = None
    bursts: bool = False
    finite: bool = False
    note: str = ""
    sound: bytes = b""


@dataclass(frozen=True, slots=True)
class ReceivedPicture:
    """One decoded picture and the sender's time for it, nanoseconds on a clock of its own; None if it gives none.

    note  what was done to it, in words
    sound  what came of it since the picture before, on the clock of `sent_ns` (`sound_packets.py`)
    """

    frame: VideoFrame
    sent_ns: int | None = None
    note: str | None = None
    sound: bytes = b""


class Session(Protocol):
    """One connection, from when it is made until it breaks. One thread, but for `interrupt`."""

    nature: Nature

    def pictures(self) -> Iterator[ReceivedPicture | str | None]:
        """Pictures as they come; None when something came that made no picture. Ends with a clip.

        Between them a line for the user now and then: what was mended or missing.

        Raises `Broken`, or what FFmpeg or the system raises, when the connection breaks or is silent too long."""

    def interrupt(self) -> None:
        """From any thread: `pictures` is to end soon if it can be made to."""

    def close(self) -> None:
        """Give the connection back."""


Connect = Callable[[], Session]
"""Make one try. Raises `Broken`, or what FFmpeg or the system raises."""


def plausible_rate(*told: Any, fastest: int = _FASTEST) -> Fraction:
    """The first rate that can be one of video, else the usual one."""
    rates = (Fraction(rate.numerator, rate.denominator) for rate in told if rate and rate.denominator)
    return next((rate for rate in rates if _SLOWEST <= rate <= fastest), _USUAL_RATE)
