"""Whether a file's lock is held: a lock of the operating system, which dies with its process."""

import os
from pathlib import Path

from warpfuse.engine.file_lock import try_lock

_CLOSED = getattr(os, "O_CLOEXEC", 0)  # in programs that are started; of Windows files are so anyway


def is_held(path: Path) -> bool:
    """Another process holds the lock of this file. False without a file; a link is not followed."""
    try:
        handle = os.open(path, os.O_RDWR | _CLOSED | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
