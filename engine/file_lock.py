"""A file lock of the operating system, which is released however its process ends."""

import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

_AGAIN_S = 0.05
_ATTEMPTS = 3
_CLOSED = getattr(os, "O_CLOEXEC", 0)  # child processes do not inherit the file; on Windows they never do


def try_lock(handle: int) -> bool:
    """Lock an open file, given by its descriptor, until it is closed. False: another process has locked it.

    A process that asks `is_held` has it for a moment, shared, and does not count.
    """
    if "fcntl" in globals():
        while not _flock(handle):
            if not _flock(handle, shared=True):
                return False
        return True
    for _ in range(_ATTEMPTS):  # Windows has no shared locks
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            time.sleep(_AGAIN_S)
        else:
            return True
    return False


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
        return not (_flock(handle, shared=True) if "fcntl" in globals() else try_lock(handle))
    finally:
        os.close(handle)


def _flock(handle: int, *, shared: bool = False) -> bool:
    """Take the lock without waiting."""
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX  # type: ignore[attr-defined, unused-ignore]
        fcntl.flock(handle, kind | fcntl.LOCK_NB)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True
