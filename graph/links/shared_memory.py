"""Slot tables in shared memory. The process that writes a table creates and removes its file.

    /dev/shm/warpfuse-<uid>/<run>-<pid>-<token>/     0700, one folder a process, which holds a lock on `owner`
        owner
        <link>.<epoch>.<table>                       0600, one slot table

`multiprocessing.shared_memory` is not used: before Python 3.13, a reader that exits unlinks the writer's memory.

Layout of a table: one page with magic, version, number of slots and slot size; 64 bytes a slot for its generation; the
slots, each starting on a page. The stored generation is odd while the slot is written and even when it may be read.
"""

import contextlib
import errno
import mmap
import os
import re
import secrets
import shutil
import struct
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from warpfuse.engine.file_lock import is_held, lock
from warpfuse.graph.errors import SharedMemoryFull, WireError
from warpfuse.graph.links import tensor_layout
from warpfuse.graph.links.shared_slots import Views
from warpfuse.stages.borrowed import mark_borrowed, unmark_borrowed

_PAGE = 4096
_LINE = 64
_MAGIC = b"WFSLOTS\x01"
_HEADER = struct.Struct("<8sQQ")
_PLACE = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,90}")
_MIB = 1 << 20


def shared_root() -> Path:
    """The folder of this user's shared memory."""
    if sys.platform == "win32":
        raise NotImplementedError
    return Path(os.environ.get("WARPFUSE_SHM", "/dev/shm")) / f"warpfuse-{os.getuid()}"


class RunFolder:
    """This process's folder in shared memory. A context manager that removes it; after a crash `sweep` does."""

    def __init__(self, run: str, root: Path | None = None) -> None:
        root = root or shared_root()
        name = re.sub(r"[^A-Za-z0-9_]+", "_", run)[:40] or "run"
        self.path = root / f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
        with _locked(root):  # else a sweep could remove the folder before it is locked
            self.path.mkdir(mode=0o700)
            self._lock = _open_lock(self.path / "owner")
            lock(self._lock)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder. A reader that has a table mapped keeps its memory. A second call does nothing."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def sweep(root: Path | None = None) -> list[Path]:
    """Remove the folders of dead processes. Returns the folders removed.

    A folder is in use while `owner` is locked. The process id in its name is no proof, since ids are used again. The
    system releases the lock when its process ends, however it ends.
    """
    root = root or shared_root()
    removed: list[Path] = []
    if not root.is_dir():
        return removed
    with _locked(root):
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and not is_held(folder / "owner"):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


class SharedTable:
    """A mapped slot table (`shared_slots.Table`). The sender makes it with `create`, the reader with `open`.

    copies, copied_bytes  planes that `write` has copied into slots
    views                 (slot, planes) -> tensors over the slot's memory
    """

    def __init__(self, memory: mmap.mmap, slots: int, slot_bytes: int, path: Path | None = None) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self.copies = 0
        self.copied_bytes = 0
        first = _payload(slots)
        self.views = Views(slots, lambda slot, plane: tensor_layout.view(memory, first + slot * slot_bytes, plane))
        self._path = path
        self._generations = np.frombuffer(memory, np.uint64, slots * _LINE // 8, _PAGE)[:: _LINE // 8]

    @classmethod
    def create(cls, path: Path, slots: int, slot_bytes: int) -> "SharedTable":
        """Create the file of a table. Raises SharedMemoryFull. All memory is allocated here, since a page missing later
        would be SIGBUS."""
        if sys.platform != "linux":
            raise NotImplementedError
        size = _size(slots, slot_bytes)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            memory = mmap.mmap(fd, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        except OSError as error:
            path.unlink()
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
                raise
            free = shutil.disk_usage(path.parent).free
            raise SharedMemoryFull(
                f"shared memory: a link needs {size / _MIB:.0f} MiB in {path.parent.parent}, {free / _MIB:.0f} MiB are"
                f" free ({error.strerror}). Enlarge it (containers: --shm-size=2g), use a smaller --size, or --workers"
                " one, which needs none"
            ) from None
        finally:
            os.close(fd)
        _HEADER.pack_into(memory, 0, _MAGIC, slots, slot_bytes)
        return cls(memory, slots, slot_bytes, path)

    @classmethod
    def open(cls, place: str, slots: int, slot_bytes: int, root: Path | None = None) -> "SharedTable":
        """Map this user's table at `place` ("folder/file"). Raises WireError for a missing table or another shape."""
        if sys.platform == "win32":
            raise NotImplementedError
        if not _PLACE.fullmatch(place) or ".." in place:
            raise WireError(f"{place!r} is no place of a slot table")
        path, size = (root or shared_root()) / place, _size(slots, slot_bytes)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise WireError(f"slot table {place}: {error.strerror}") from None
        try:
            found = os.fstat(fd)
            if found.st_uid != os.getuid() or found.st_size != size:
                raise WireError(f"slot table {place} has {found.st_size} bytes, agreed were {size}")
            memory = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        if _HEADER.unpack_from(memory) != (_MAGIC, slots, slot_bytes):
            raise WireError(f"slot table {place} is of another shape or version")
        _lend(memory)
        return cls(memory, slots, slot_bytes)

    def generation(self, slot: int) -> int:
        """Number of times the slot has been filled; -1 while it is being written."""
        word = int(self._generations[slot])
        return -1 if word % 2 else word // 2

    def write(self, slot: int, generation: int, packing: tensor_layout.Packing) -> None:
        """Copy the planes into a slot. A link between processes of a host copies a picture here and nowhere else."""
        self._generations[slot] = 2 * generation - 1
        for into, tensor in zip(self.views(slot, packing.content.planes), packing.tensors, strict=True):
            into.copy_(tensor)
            self.copies += 1
            self.copied_bytes += tensor.nbytes
        # The reader must not see this before the planes. x86 keeps the order of stores, and the message comes later.
        self._generations[slot] = 2 * generation

    def check(self, slot: int, generation: int) -> None:
        """Raise WireError when the slot does not hold this generation."""
        found = self.generation(slot)
        if found != generation:
            raise WireError(f"slot {slot} holds generation {found}, not {generation}: it was filled again while lent")

    before = after = check

    def close(self) -> None:
        """Drop the views; the mapping ends with the last tensor over it. The sender's file is removed at once."""
        self.views.clear()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def slot_bytes_for(nbytes: int) -> int:
    """Size of a slot for this many bytes, rounded up to whole pages."""
    return max(_PAGE, -(-nbytes // _PAGE) * _PAGE)


def _lend(memory: mmap.mmap) -> None:
    """Mark the mapping's addresses as borrowed memory for as long as the mapping exists."""
    start, size = int(np.frombuffer(memory, np.uint8).__array_interface__["data"][0]), len(memory)
    mark_borrowed(start, size)
    weakref.finalize(memory, unmark_borrowed, start, size)


def _payload(slots: int) -> int:
    return _PAGE + -(-slots * _LINE // _PAGE) * _PAGE


def _size(slots: int, slot_bytes: int) -> int:
    return _payload(slots) + slots * slot_bytes


def _open_lock(path: Path) -> int:
    if sys.platform == "win32":
        raise NotImplementedError
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the lock on this user's root, which is made if missing. Raises PermissionError for another user's folder."""
    if sys.platform == "win32":
        raise NotImplementedError
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.stat(follow_symlinks=False)
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, f"{root} has to be a folder of this user with mode 0700")
    fd = _open_lock(root / ".lock")
    try:
        lock(fd)
        yield
    finally:
        os.close(fd)
