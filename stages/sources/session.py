"""The protocol of a live source's connection: connect, give pictures until it breaks, interrupt, close."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from av.video.frame import VideoFrame

_USUAL_RATE = Fraction(25)  # of streams without a rate
_SLOWEST = Fraction(1, 3600)  # a lower rate means damage
_FASTEST = 240  # a higher rate is that of the clock instead


@dataclass(frozen=True, slots=True)
class Nature:
    """What is known about a stream once it is connected.

    rate          frames a second
    pixel_aspect  pixel aspect of the stream; None: square or unknown
    bursts        pictures come in bursts, and have to be spaced by their own times
    finite        the stream is a clip: it has an end, and no frame may be lost
    note          a line for the user about choices made, without secrets; "": none
    sound         as `VideoInfo.sound`
    """

    rate: Fraction
    pixel_aspect: Fraction | None = None
    bursts: bool = False
    finite: bool = False
    note: str = ""
    sound: bytes = b""


@dataclass(frozen=True, slots=True)
class ReceivedPicture:
    """One decoded picture.

    sent_ns  the sender's time of it, ns by the sender's clock; None: it gave none
    note     what was done to it, in words
    sound    sound that came since the last picture, by the clock of `sent_ns` (`sound_packets.py`)
    """

    frame: VideoFrame
    sent_ns: int | None = None
    note: str | None = None
    sound: bytes = b""


class Session(Protocol):
    """One connection. One thread uses it; `interrupt` may be called by any."""

    nature: Nature

    def pictures(self) -> Iterator[ReceivedPicture | str | None]:
        """Yield pictures as they come, and None for data that complete no picture. It ends with a clip.

        Strings in between are lines for the user about what was repaired or missing.

        Raises `Broken`, or an error of FFmpeg or the system, when the connection breaks or is silent for too long.
        """

    def interrupt(self) -> None:
        """Make `pictures` end soon, where that is possible. From any thread."""

    def close(self) -> None:
        """Close the connection."""


Connect = Callable[[], Session]
"""Tries to connect once. Raises `Broken`, or an error of FFmpeg or the system."""


def plausible_rate(*claimed: Any, fastest: int = _FASTEST) -> Fraction:
    """The first of the claimed rates that is plausible for video; else 25."""
    rates = (Fraction(rate.numerator, rate.denominator) for rate in claimed if rate and rate.denominator)
    return next((rate for rate in rates if _SLOWEST <= rate <= fastest), _USUAL_RATE)
