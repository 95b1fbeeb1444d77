"""Names of pictures in a row: a folder, a glob, or `shots/%04d.png` and the numbers under which files of it exist."""

import glob
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from warpfuse.stages.sources.schemes import path_of

_NAME = re.compile(r"((?:[^%]|%%)*)%0?(\d*)d((?:[^%]|%%)*)")
_LISTED = 6  # stretches of numbers that are named one by one


@dataclass(frozen=True, slots=True)
class Numbered:
    """A name with one number in it, padded with zeros to `digits`; longer numbers are not cut.

    head, tail  what stands before and behind the number in the file's name
    """

    folder: Path
    head: str
    digits: int
    tail: str

    @classmethod
    def parse(cls, path: Path) -> "Numbered | None":
        """Read `folder/head%04dtail`, as printf writes it (%% is a percent sign). None: it is no such name."""
        found = _NAME.fullmatch(path.name)
        if found is None:
            return None
        head, tail = (text.replace("%%", "%") for text in (found[1], found[3]))
        return cls(path.parent, head, int(found[2] or 0), tail)

    def path(self, number: int) -> Path:
        """The file of this number, 0 or more."""
        return self.folder / f"{self.head}{number:0{self.digits}d}{self.tail}"

    def number(self, path: Path) -> int | None:
        """The number of a file in this row, None for any other file."""
        text = path.name.removeprefix(self.head).removesuffix(self.tail)
        if not (text.isascii() and text.isdigit() and self.path(int(text)).name == path.name):
            return None
        return int(text) if path.parent.resolve() == self.folder.resolve() else None

    def existing(self) -> dict[int, Path]:
        """Files of the row by number, lowest first. Raises OSError for a folder that cannot be listed."""
        numbers = ((self.number(path), path) for path in self.folder.iterdir())
        return dict(sorted((number, path) for number, path in numbers if number is not None))


def names_a_row(url: str) -> bool:
    """The path is a folder, or is no file but a pattern: one number as %04d, or the signs * ? [ of a glob."""
    base, _ = split_address(url)
    path = path_of(base)
    if path.exists():
        return path.is_dir()
    return Numbered.parse(path) is not None or glob.has_magic(str(path))


def with_rate(source: str, fps: object) -> str:
    """The source, its pictures so many a second, if it is pictures in a row that say nothing of a rate themselves."""
    told = isinstance(source, str) and fps is not None and names_a_row(source) and not split_address(source)[1]
    return f"{source}#fps={fps}" if told else source


def split_address(url: str) -> tuple[str, str]:
    """Path and settings. A number sign in the name of something that exists is part of its name."""
    base, sign, told = url.rpartition("#")
    return (base, told) if sign and not path_of(url).exists() else (url, "")


def stretches(numbers: list[int]) -> str:
    """Ascending numbers for a line of text: `3, 7 to 9`; what is beyond a few stretches is counted."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    told = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:_LISTED]]
    left = sum(len(run) for run in runs[_LISTED:])
    return ", ".join(told) + (f" and {left} more" if left else "")
