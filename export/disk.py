"""Room for a bundle, asked before minutes of work; and a disk that fills meanwhile, told in one line."""

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

SPARE = 1.05  # graphs, descriptions, blocks that are not full
FULL = 1 << 20  # with less free than this, a disk is what a writer failed on


def check_room(folder: Path, networks: Mapping[str, tuple[int, int]], targets: Targets) -> None:
    """Nothing if a bundle fits where `folder` is to be, and what is needed meanwhile into the temporary folder.

    networks  name -> (parameters, bytes of one in the file)

    Raises ExportError.
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
    """An operating system's refusal to write, whoever it was told, as an ExportError of one line."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}. Nothing was left there") from None
    except RuntimeError as error:  # of torch's writers, which drop the reason
        if shutil.disk_usage(_existing(folder.absolute())).free >= FULL:
            raise
        reason = os.strerror(errno.ENOSPC)
        raise ExportError(f"{folder} cannot be written: {reason}. Nothing was left there") from error


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
