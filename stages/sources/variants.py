"""Choosing one variant of a stream that is offered in several sizes, so that only this one is fetched."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urljoin

USUAL_SIZE = (1280, 720)
"""Default: above the sizes at which networks run."""

_STREAM, _MEDIA, _VARIABLE = "#EXT-X-STREAM-INF:", "#EXT-X-MEDIA:", "#EXT-X-DEFINE:"
_ATTRIBUTE = re.compile(r"([A-Z0-9-]+)=(\"[^\"]*\"|[^,]*)")
_SHAPE = re.compile(r"(\d+)x(\d+)")
_HEAD = "#EXTM3U\n#EXT-X-VERSION:7\n"


def nearest_above(sizes: Sequence[tuple[int, int] | None], near: tuple[int, int]) -> int:
    """The index of the smallest (width, height) that is at least `near` in both dimensions, else of the largest.

    Of equal sizes the first. If no size is known (None, or 0), 0.
    """
    known = [(size, index) for index, size in enumerate(sizes) if size is not None and min(size) > 0]
    if not known:
        return 0
    above = [each for each in known if each[0][0] >= near[0] and each[0][1] >= near[1]]
    if above:
        return min(above, key=lambda each: each[0][0] * each[0][1])[1]
    return max(known, key=lambda each: (each[0][0] * each[0][1], -each[1]))[1]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One variant of an HLS playlist.

    playlist  a playlist with this variant and its sound only
    note      a line for the user
    """

    playlist: str
    note: str

    @property
    def url(self) -> str:
        """The playlist as a data: URL, which FFmpeg can open."""
        return "data:application/vnd.apple.mpegurl;base64," + b64encode(self.playlist.encode()).decode()


def choose_variant(playlist: str, base: str, near: tuple[int, int]) -> Chosen | None:
    """Choose the variant of `nearest_above`; None if there is nothing to choose.

    base  URL that the playlist's addresses are relative to
    """
    if _VARIABLE in playlist:  # variables are not supported, nor are they by FFmpeg
        return None
    lines = [line.strip() for line in playlist.splitlines() if line.strip()]
    pairs = [pair for pair in pairwise(lines) if pair[0].startswith(_STREAM)]
    variants = [(line, uri) for line, uri in pairs if not uri.startswith("#")]
    pictured = [each for each in variants if _size(each[0]) is not None] or variants
    if len(pictured) < 2:
        return None
    # Of one size take the highest bit rate.
    pictured.sort(key=lambda each: -_rate(each[0]))
    line, uri = pictured[nearest_above([_size(each[0]) for each in pictured], near)]
    groups = {_attributes(line).get(kind, "") for kind in ("AUDIO", "VIDEO")} - {""}
    media = [
        _absolute(each, base)
        for each in lines
        if each.startswith(_MEDIA) and _attributes(each).get("GROUP-ID") in groups
    ]
    kept = [_HEAD.rstrip(), *media, line, urljoin(base, uri), ""]
    size = _size(line)
    what = f"{size[0]}x{size[1]}" if size is not None else f"that of {_rate(line) // 1000} kbit/s"
    others = ", ".join(
        dict.fromkeys(f"{each[0]}x{each[1]}" for other in pictured if (each := _size(other[0])) not in (size, None))
    )
    return Chosen(
        "\n".join(kept), f"{what} is taken of {len(pictured)} variants" + (f" (also {others})" if others else "")
    )


def _attributes(line: str) -> dict[str, str]:
    return {key: value.strip('"') for key, value in _ATTRIBUTE.findall(line.partition(":")[2])}


def _size(line: str) -> tuple[int, int] | None:
    shape = _SHAPE.fullmatch(_attributes(line).get("RESOLUTION", ""))
    return (int(shape[1]), int(shape[2])) if shape is not None else None


def _rate(line: str) -> int:
    bandwidth = _attributes(line).get("BANDWIDTH", "")
    return int(bandwidth) if bandwidth.isdecimal() else 0


def _absolute(line: str, base: str) -> str:
    uri = _attributes(line).get("URI")
    return line if uri is None else line.replace(f'"{uri}"', f'"{urljoin(base, uri)}"')
