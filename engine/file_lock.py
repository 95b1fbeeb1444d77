"""A file lock of the operating system, which is released however its process ends."""

import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

_AGAIN_S = 0.05
_CLOSED = getattr(os, "O_CLOEXEC", 0)  # child processes do not inherit the file; on Windows they never do


def try_lock(handle: int) -> bool:
    """Lock an open file, given by its descriptor, until it is closed. False: somebody else has the lock."""
    try:
        if "fcntl" in globals():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[attr-defined, unused-ignore]
        else:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True


def lock(handle: int) -> None:
    """As `try_lock`, but wait for the lock."""
    if "fcntl" in globals():
        fcntl.flock(handle, fcntl.LOCK_EX)  # type: ignore[attr-defined, unused-ignore]
        return
    while not try_lock(handle):
        time.sleep(_AGAIN_S)


def is_held(path: Path) -> bool:
    """Whether another process has the lock of this file. False if there is no file. Links are not followed."""
    try:
        handle = os.open(path, os.O_RDWR | _CLOSED | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
