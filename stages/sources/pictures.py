"""An image sequence as a source: `shots/%04d.png`, a folder, or `"shots/*.jpg"`."""

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.video.frame import VideoFrame

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.container import exact, open_clip, require_picture
from warpfuse.stages.sources.numbered import Numbered, names_a_row, split_address, stretches
from warpfuse.stages.sources.schemes import parse_rate, path_of
from warpfuse.stages.sources.stills import Still, StillsSource
from warpfuse.stages.stage import VideoInfo

SCHEMES: tuple[str, ...] = ("file",)

_USUAL_RATE = "25"
_FASTEST = 1000
_ENDINGS = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "tga", "exr", "dpx", "ppm", "pgm", "avif", "jxl", "jp2")
_NAMED = 3  # unreadable pictures that are listed by name


def serves(url: str) -> bool:
    """The address is an image sequence."""
    return names_a_row(url)


def probe(url: str) -> VideoInfo:
    """Information on the sequence. Decodes one picture. Raises SourceError."""
    source = open(url, None, None)
    source.close()
    return source.info


def open(url: str, size: tuple[int, int] | None, frames: int | None) -> StillsSource:
    """Open the sequence. `#fps=12` after the path sets its rate, which is 25 by default. Raises SourceError."""
    row = PictureSequence.parse(url)
    fps = row.fps
    return StillsSource(row.name, row.stills(), row.losses, (fps, 1 / fps, len(row.files)), size, frames)


@dataclass(slots=True)
class PictureSequence:
    """The files of a sequence in order.

    files    (number, file), with numbers counted from the first
    missing  numbers without a file. They keep their time, so that sound, for instance, stays synchronous
    unread   names of files that could not be read
    """

    name: str
    fps: Fraction
    files: list[tuple[int, Path]]
    missing: list[int]
    unread: list[str]

    @classmethod
    def parse(cls, url: str) -> "PictureSequence":
        """Find the files. Raises SourceError without any, for an unreadable folder and for an unknown setting."""
        base, setting = split_address(url)
        path = path_of(base)
        key, _, rate = (setting or f"fps={_USUAL_RATE}").partition("=")
        if key != "fps":
            raise SourceError(f"{url}: '{setting}' is not understood. Write the rate as in {base}#fps=12.")
        fps = parse_rate(url, rate, _FASTEST)
        numbered = None if path.is_dir() else Numbered.parse(path)
        if numbered is None:
            return cls(base, fps, list(enumerate(_listed(path))), [], [])
        found = _numbered(numbered, path)
        first, last = min(found), max(found)
        missing = [number for number in range(first, last) if number not in found]
        return cls(base, fps, [(number - first, file) for number, file in found.items()], missing, [])

    def stills(self) -> Iterator[Still]:
        """Yield the pictures that can be read. The names of the others are added to `unread`."""
        for number, file in self.files:
            try:
                picture, aspect = _decoded(file)
            except Exception:  # noqa: BLE001  (PyAV raises more than FFmpeg's errors: container.py)
                self.unread.append(file.name)
                continue
            yield number / self.fps, picture, aspect

    def losses(self) -> str | None:
        """A line for the user if pictures are missing or could not be read; else None."""
        lines = []
        if self.missing:
            lines.append(f"there is no picture {stretches(self.missing)}, the one before stays on for as long")
        if self.unread:
            more = f" and {len(self.unread) - _NAMED} more" if len(self.unread) > _NAMED else ""
            lines.append(f"could not be read: {', '.join(self.unread[:_NAMED])}{more}")
        return f"{self.name}: {'; '.join(lines)}." if lines else None


def holds(url: str, path: Path) -> bool:
    """A file of this name, if it existed, would belong to the image sequence `url`."""
    if not serves(url):
        return False
    row = path_of(split_address(url)[0])
    if row.is_dir():
        return path.parent.resolve() == row.resolve() and _is_picture(path)
    numbered = Numbered.parse(row)
    if numbered is not None:
        return numbered.number(path) is not None
    return path.resolve().match(str(row.absolute())) and _is_picture(path)


def _numbered(numbered: Numbered, path: Path) -> dict[int, Path]:
    try:
        found = numbered.existing()
    except OSError as error:
        raise SourceError(f"{path}: the folder {numbered.folder} cannot be read ({error.strerror}).") from None
    if not found:
        near = next((p.name for p in sorted(numbered.folder.iterdir()) if _is_picture(p)), None)
        hint = f"There is '{near}'; the number has as many digits as the pattern says." if near else "Check the name."
        raise SourceError(f"{path}: no file of this pattern exists. {hint}")
    return found


def _listed(path: Path) -> list[Path]:
    """The pictures of a folder or a glob, in natural order: numbers in their names are sorted by value."""
    if path.is_dir():
        try:
            found = [file for file in path.iterdir() if not file.name.startswith(".")]
        except OSError as error:
            raise SourceError(f"{path}: the folder cannot be read ({error.strerror}).") from None
        what = "this is a folder without pictures. Name a video file in it, or a folder with pictures"
    else:
        found = [Path(name) for name in glob.glob(str(path))]  # noqa: PTH207  (Path's needs a folder apart from the pattern)
        what = "no picture matches. Check the pattern, and put it in quotation marks, or the shell replaces it"
    pictures = [file for file in found if _is_picture(file) and file.is_file()]
    if not pictures:
        raise SourceError(f"{path}: {what} ({', '.join(_ENDINGS)}).")
    return sorted(pictures, key=lambda file: [*map(_natural, file.parts)])


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `f2` before `f10`."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower().removeprefix(".") in _ENDINGS


def _decoded(file: Path) -> tuple[VideoFrame, Fraction]:
    with open_clip(file) as container:
        stream = require_picture(container, file)
        for picture in container.decode(stream):
            return picture, exact(stream.sample_aspect_ratio) or Fraction(1)
    raise SourceError(f"{file}: no picture in it.")
