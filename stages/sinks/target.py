"""The file a sink writes: whether it can be written, its unfinished name, and its final one."""

import errno
import itertools
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from av.error import FFmpegError

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.sources.schemes import path_of, scheme_of

_TOLD_APART = itertools.count()


class Target:
    """A file that appears under its name when it is whole, and not at all otherwise.

    `engine.files.written_whole` would not do: a recording that breaks off is kept, and a full disk is told with its
    figures.

    path       the final name, links resolved: what a link names is replaced, not the link
    recording  it cannot be made again: whatever happens, what was written is kept, under the name of the part
    part       the name meanwhile, beside it: `.NAME.part-PID-N`; of a recording `STEM.unfinished-PID-N.ENDING`
    """

    def __init__(self, path: Path, recording: bool = False) -> None:
        self.path = path.resolve()
        self.recording = recording
        mark = f"{os.getpid()}-{next(_TOLD_APART)}"
        part = f"{self.path.stem[:200]}.unfinished-{mark}{self.path.suffix}"
        self.part = self.path.with_name(part if recording else f".{self.path.name[:200]}.part-{mark}")

    def left_behind(self) -> list[str]:
        """Names of unfinished recordings of this file whose process is dead."""
        stem, ending = re.escape(self.path.stem[:200]), re.escape(self.path.suffix)
        part = re.compile(rf"{stem}\.unfinished-(\d+)-\d+{ending}")
        found = ((path.name, part.fullmatch(path.name)) for path in sorted(self.path.parent.iterdir()))
        return [name for name, match in found if match and not _lives(int(match[1]))]

    def keep(self) -> None:
        """Bring the part to disk and give it its name. Raises SinkLost."""
        try:
            handle = os.open(self.part, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            self.part.replace(self.path)
        except OSError as error:
            raise self.lost(error) from None

    def drop(self) -> None:
        """Remove the part; what was under the final name before stays."""
        self.part.unlink(missing_ok=True)

    def lost(self, error: OSError | FFmpegError, frames: int | None = None) -> SinkLost:
        """What to raise when writing failed. Removes the part, but a recording's: on a full disk, the first remedy."""
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


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def require_writable(path: Path, source: str | None) -> None:
    """Raise SinkError if no file can be made at `path`, or if it is the source."""
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
