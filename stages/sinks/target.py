"""The output file of a sink: a check whether it can be written, its temporary name and its final one."""

import errno
import itertools
import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
from av.error import FFmpegError

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.sources.schemes import path_of, scheme_of

_TOLD_APART = itertools.count()


class Target:
    """A file that gets its final name when it is complete.

    It differs from `engine.files.written_whole`: an incomplete recording is kept, and a full disk is reported with
    figures.

    A file that can be made again has no name before it is complete, where the system allows that. The kernel then
    removes it with a killed process. Elsewhere it has a hidden name, and the next sink of the same path removes what a
    dead process has left.

    path       the final name, with links resolved: a link's target is replaced, not the link
    recording  the file cannot be made again. An incomplete one is kept under the name of the part
    part       where the file is written: `/proc/self/fd/N` for a file without a name, else `.NAME.part-PID-N` beside
               the path; for a recording `STEM.unfinished-PID-N.ENDING`
    """

    def __init__(self, path: Path, recording: bool = False) -> None:
        self.path = path.resolve()
        self.recording = recording
        mark = f"{os.getpid()}-{next(_TOLD_APART)}"
        part = f"{self.path.stem[:200]}.unfinished-{mark}{self.path.suffix}"
        self._hidden = f".{self.path.name[:200]}.part-"
        self._beside = self.path.with_name(part if recording else f"{self._hidden}{mark}")
        self._unnamed: int | None = None
        if not recording:
            self._unnamed = _open_unnamed(self.path.parent)
        self.part = self._beside if self._unnamed is None else Path(f"/proc/self/fd/{self._unnamed}")

    def left_behind(self) -> list[Path]:
        """Parts of this file that dead processes have left."""
        before, after = (
            (f"{self.path.stem[:200]}.unfinished-", self.path.suffix) if self.recording else (self._hidden, "")
        )
        part = re.compile(rf"{re.escape(before)}(\d+)-\d+{re.escape(after)}")
        found = ((path, part.fullmatch(path.name)) for path in sorted(self.path.parent.iterdir()))
        return [path for path, match in found if match and not _lives(int(match[1]))]

    def keep(self, sync: bool = True) -> None:
        """Give the part its final name. sync: flush it to disk first. Raises SinkLost."""
        try:
            if sync:
                self._sync()
            if self._unnamed is not None:
                # Note: with a dir_fd Python calls linkat, which can follow /proc/self/fd to the file; link cannot.
                os.link(self.part, self._beside, src_dir_fd=self._unnamed, follow_symlinks=True)
            self._beside.replace(self.path)
        except OSError as error:
            raise self.lost(error) from None
        self._close()

    def drop(self) -> None:
        """Remove the part. An older file of the final name stays."""
        self._beside.unlink(missing_ok=True)
        self._close()

    def _sync(self) -> None:
        handle = os.open(self.part, os.O_RDWR)  # Windows does not sync a file that is open for reading only
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _close(self) -> None:
        unnamed, self._unnamed = self._unnamed, None
        if unnamed is not None:
            os.close(unnamed)

    def lost(self, error: OSError | FFmpegError, frames: int | None = None) -> SinkLost:
        """Make the error to raise when writing has failed. It removes the part, which frees a full disk; a recording's
        part is kept."""
        after = "" if frames is None else f" after {frames} frames"
        try:
            usage = shutil.disk_usage(self.path.parent)
            room = f"{usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB were free"
        except OSError:
            room = "the folder is gone"
        if self.recording and self.part.exists():
            left = f"What was recorded until then is kept: {self.part.name}."
        else:
            self.drop()
            left = "The unfinished file was removed."
        where = f"{self.path.parent}. {left}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"writing failed ({error.strerror or error})"
        remedy = "Make room, or name a file on another disk." if full else "Check the disk."
        return SinkLost(f"{self.path}: {what}{after}; {room} in {where} {remedy}")


def _open_unnamed(folder: Path) -> int | None:
    """Open a file without a name on that folder's disk. None where that is impossible (Windows, macOS, FAT, NFS)."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, flag | os.O_RDWR, 0o666)
    except OSError:
        return None


def _lives(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill(pid, 0) would end the process there
        return bool(psutil.pid_exists(pid))
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def require_writable(path: Path, source: str | None) -> None:
    """Raise SinkError if no file can be written at `path`, or if it is the source."""
    folder = path.parent
    if path.is_dir():
        raise SinkError(f"{path}: a file name is expected, this is a folder. Try: {path / 'styled.mp4'}")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SinkError(f"{path}: the folder {folder} {what}. Try: mkdir -p '{folder}'")
    if source is not None and scheme_of(source) == "file" and path.exists():
        read = path_of(source)
        if read.exists() and path.samefile(read):
            raise SinkError(f"{path}: the source is this very file; writing would destroy it. Choose another name.")
    if path.exists() and not path.is_file():
        raise SinkError(f"{path}: a file is expected, this is a device or pipe.")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise SinkError(f"{path}: no writing to the folder {folder} ({error.strerror}). Choose another.") from None
