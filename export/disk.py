"""Disk space for a bundle: checked before minutes of work, and reported in one line if the disk fills meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .onnx_writing import ExportError
from .targets import Targets

SPARE = 1.05  # for graphs, descriptions and partly filled blocks
FULL = 1 << 20  # bytes; with less free space than this, a writer's failure is blamed on the disk


def check_room(folder: Path, networks: Mapping[str, tuple[int, int]], targets: Targets) -> None:
    """Raise ExportError unless there is space for the bundle at `folder`, and for temporary files.

    networks  (number of parameters, bytes of each in the file) by name
    """
    written = float(sum(parameters * size for parameters, size in networks.values()))
    copies = 1 + ("torch" in targets.names) + len(targets.plans())
    widest = 4.0 * max(parameters for parameters, _ in networks.values())  # traced in float32, one after the other
    places: dict[int, tuple[Path, float]] = {}
    for place, needed in ((folder.absolute().parent, written * copies), (Path(tempfile.gettempdir()), widest)):
        there = _existing(place)
        first, before = places.get(there.stat().st_dev, (there, 0.0))
        places[there.stat().st_dev] = (first, before + SPARE * needed)
    for place, needed in places.values():
        free = shutil.disk_usage(place).free
        if needed > free:
            raise ExportError(
                f"{place}: {needed / 1e9:.2f} GB are needed for {', '.join(targets.names)}, {free / 1e9:.2f} GB are "
                "free there. Make room, give another --output, or set TMPDIR to another disk"
            )


@contextlib.contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """Turn a failure to write to `folder` into an ExportError of one line."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}. Nothing was left there") from None
    except RuntimeError as error:  # torch's writers do not pass the reason on
        if shutil.disk_usage(_existing(folder.absolute())).free >= FULL:
            raise
        reason = os.strerror(errno.ENOSPC)
        raise ExportError(f"{folder} cannot be written: {reason}. Nothing was left there") from error


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
