"""The folder of what the page writes of a run: recordings, snapshots and keyframes."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from warpfuse.engine.files import write_whole
from warpfuse.graph.errors import ConfigError


class RecordFolder:
    """A folder, made when something is first written to it. Files are named by the local time.

    Every method raises ConfigError where the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recording(self) -> Path:
        """The file of a recording that begins now. It is not made here."""
        with self._writing("recordings"):
            return self._folder / time.strftime("warpfuse-%Y%m%d-%H%M%S.mp4")

    def keep_snapshot(self, picture: bytes) -> Path:
        """Write a PNG to a new file, which is returned."""
        name = time.strftime("warpfuse-%Y%m%d-%H%M%S")
        with self._writing("pictures"):
            file = next(one for n in count() if not (one := self._folder / f"{name}-{n}.png").exists())
            write_whole(file, picture)
        return file

    def keep_keyframe(self, painted: bytes, frame: bytes | None) -> dict[str, str]:
        """Write a painted picture, and the frame that it was painted over if that is known.

        Returns the files by their keys of `stages.anchor`. After an error there is neither.
        """
        name = self._folder / f"keyframe-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        files = {"picture": (name.with_suffix(".png"), painted)}
        if frame is not None:
            files["frame"] = (name.with_name(f"{name.name}-frame.png"), frame)
        with self._writing("keyframes"), contextlib.ExitStack() as undo:
            for file, data in files.values():
                undo.callback(file.unlink, missing_ok=True)
                write_whole(file, data)
            undo.pop_all()
        return {key: str(file) for key, (file, _) in files.items()}

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise ConfigError(f"{self._folder}: no {what} can be kept there ({error.strerror})") from None
