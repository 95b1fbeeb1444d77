"""Write a file completely or not at all."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside `path` to write to. At the end the file is synced and renamed to `path`.

    If the block raises, the new file is removed and an old file at `path` stays. After a kill the hidden file remains,
    under the name `.NAME.PID-THREAD.tmp`. If `path` is a link, its target is replaced.
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
    """Write a file completely or not at all. A pipe or a device is written to directly.

    mode  permissions of the file, minus the umask
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with written_whole(path) as fresh:
        fresh.touch(mode)
        fresh.write_bytes(data)
