"""Names of image sequences: a folder, a glob, or a numbered name such as `shots/%04d.png`."""

import glob
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from warpfuse.stages.sources.schemes import path_of

_NAME = re.compile(r"((?:[^%]|%%)*)%0?(\d*)d((?:[^%]|%%)*)")
_LISTED = 6  # ranges of numbers that are listed


@dataclass(frozen=True, slots=True)
class Numbered:
    """File names with a number, padded with zeros to `digits`; longer numbers are kept.

    head, tail  text before and after the number
    """

    folder: Path
    head: str
    digits: int
    tail: str

    @classmethod
    def parse(cls, path: Path) -> "Numbered | None":
        """Parse `folder/head%04dtail`, as in printf (%% is a percent sign). None for a name without a number."""
        found = _NAME.fullmatch(path.name)
        if found is None:
            return None
        head, tail = (text.replace("%%", "%") for text in (found[1], found[3]))
        return cls(path.parent, head, int(found[2] or 0), tail)

    def path(self, number: int) -> Path:
        """The file with this number, which is 0 or more."""
        return self.folder / f"{self.head}{number:0{self.digits}d}{self.tail}"

    def number(self, path: Path) -> int | None:
        """The number of a file of this sequence; None for any other file."""
        text = path.name.removeprefix(self.head).removesuffix(self.tail)
        if not (text.isascii() and text.isdigit() and self.path(int(text)).name == path.name):
            return None
        return int(text) if path.parent.resolve() == self.folder.resolve() else None

    def existing(self) -> dict[int, Path]:
        """The existing files by number, lowest first. Raises OSError for a folder that cannot be listed."""
        numbers = ((self.number(path), path) for path in self.folder.iterdir())
        return dict(sorted((number, path) for number, path in numbers if number is not None))


def names_a_row(url: str) -> bool:
    """The address is an image sequence: a folder, or a path that does not exist with %04d or one of * ? [."""
    base, _ = split_address(url)
    path = path_of(base)
    if path.exists():
        return path.is_dir()
    return Numbered.parse(path) is not None or glob.has_magic(str(path))


def with_rate(source: str, fps: object) -> str:
    """Add `#fps=` to the address of an image sequence that has no setting. Other addresses are returned unchanged."""
    without = isinstance(source, str) and fps is not None and names_a_row(source) and not split_address(source)[1]
    return f"{source}#fps={fps}" if without else source


def split_address(url: str) -> tuple[str, str]:
    """Path and settings of an address. A # in the name of an existing file belongs to the name."""
    base, sign, settings = url.rpartition("#")
    return (base, settings) if sign and not path_of(url).exists() else (url, "")


def stretches(numbers: list[int]) -> str:
    """Ascending numbers as text: `3, 7 to 9`. After a few ranges the rest is counted."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    listed = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:_LISTED]]
    left = sum(len(run) for run in runs[_LISTED:])
    return ", ".join(listed) + (f" and {left} more" if left else "")
