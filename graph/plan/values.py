"""Values of the configuration in the forms in which people write them: sizes, colours, rates, degrees, devices."""

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from warpfuse.stages.geometry.framing import Rotation

Size = tuple[int, int]


def parse_size(value: Any) -> Any:
    """(width, height) from "512x288" or [512, 288]."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", value)
        if match is None:
            raise ValueError(f"{value!r} is no size: expected WIDTHxHEIGHT in pixels, as in 512x288")
        return int(match[1]), int(match[2])
    return value


def _parse_colour(value: Any) -> Any:
    """(red, green, blue) from a name as CSS has it, "#ff8800" or [255, 136, 0]."""
    if not isinstance(value, str):
        return value
    from PIL import ImageColor  # as late as can be: most runs name none

    try:
        return ImageColor.getrgb(value)[:3]
    except ValueError:
        raise ValueError(f"expected a colour, as in black, white or '#ff8800', got {value!r}") from None


def _whole(value: Any) -> Any:
    """A number that came as text: a choice of numbers is taken by its value alone."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _numbered(device: str) -> str:
    """A card by its number: events of other processes are opened on no other."""
    return "cuda:0" if device == "cuda" else device


def _rate(value: Any) -> Any:
    """Frames a second from 25, 29.97 or "30000/1001"."""
    if value is None or isinstance(value, Fraction):
        return value
    try:
        rate = Fraction(str(value)).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise ValueError(f"expected frames a second, above 0 and at most 1000, got {value!r}")
    return rate


def _rate_text(value: Fraction | None) -> str | None:
    return None if value is None else str(value)


_Level = Annotated[int, Field(ge=0, le=255)]
_Pixels = Annotated[int, Field(ge=16, le=8192)]

SizeAsked = Annotated[tuple[_Pixels, _Pixels] | None, BeforeValidator(parse_size)]
Colour = Annotated[tuple[_Level, _Level, _Level], BeforeValidator(_parse_colour)]
Degrees = Annotated[Rotation, BeforeValidator(_whole)]
Device = Annotated[str, AfterValidator(_numbered)]
Rate = Annotated[Fraction | None, BeforeValidator(_rate), PlainSerializer(_rate_text)]
