"""The file a sink writes: whether it can be written, its unfinished name, and its final one."""

import errno
import itertools
import os
import shutil
import tempfile
from pathlib import Path

from av.error import FFmpegError

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.sources.schemes import path_of, scheme_of

_TOLD_APART = itertools.count()


class Target:
    """A file that appears under its name when it is whole, and not at all otherwise.

    path  the final name, links resolved: what a link names is replaced, not the link
    part  the name meanwhile, beside it: `.NAME.part-PID-N`
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.part = self.path.with_name(f".{path.name[:200]}.part-{os.getpid()}-{next(_TOLD_APART)}")

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
        """What to raise when writing failed. Removes the part: on a full disk that is the first remedy."""
        after = "" if frames is None else f" after {frames} frames"
        try:
            usage = shutil.disk_usage(self.path.parent)
            room = f"{usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB were free"
        except OSError:
            room = "the folder is gone"
        self.drop()
        where = f"{self.path.parent}. The unfinished file was removed."
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"writing failed ({error.strerror or error})"
        remedy = "Make room, or name a file on another disk." if full else "Check the disk."
        return SinkLost(f"{self.path}: {what}{after}; {room} in {where} {remedy}")


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
