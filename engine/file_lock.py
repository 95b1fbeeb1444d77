"""A lock of the operating system on an open file. It falls with its process, however that ends."""

import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has locks of its own
    import msvcrt

_AGAIN_S = 0.05
_CLOSED = getattr(os, "O_CLOEXEC", 0)  # in programs that are started; of Windows files are so anyway


def try_lock(handle: int) -> bool:
    """Take the lock of an open file, by its descriptor, until that is closed. False: somebody else has it."""
    try:
        if "fcntl" in globals():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[attr-defined, unused-ignore]
        else:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True


def lock(handle: int) -> None:
    """The same, waited for."""
    if "fcntl" in globals():
        fcntl.flock(handle, fcntl.LOCK_EX)  # type: ignore[attr-defined, unused-ignore]
        return
    while not try_lock(handle):
        time.sleep(_AGAIN_S)


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
