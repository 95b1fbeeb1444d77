"""Whether a file's lock is held: a lock of the operating system, which dies with its process."""

import fcntl
import os
from pathlib import Path


def is_held(path: Path) -> bool:
    """Another process holds the lock of this file. False without a file; a link is not followed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
