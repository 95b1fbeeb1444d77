"""A file is written whole or not at all."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write a file to, which is synced and renamed to `path` at the end.

    When the block raises, what was written is removed, and what lay at `path` before stays. After a kill the hidden
    file stays, under the name `.NAME.PID-THREAD.tmp`. Where `path` is a link, the file it names is replaced.
    """
    path = path.resolve()
    fresh = path.with_name(f".{path.name[:200]}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file whole or not at all. A pipe or a device is written to as it is.

    mode  permissions of the file, less the umask
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with written_whole(path) as fresh:
        fresh.touch(mode)
        fresh.write_bytes(data)
