"""A cache of files that take long to build, such as TensorRT plans.

There is one artifact for each network, size, type, backend, version, GPU and set of options. `<digest>.bin` is the
artifact; `<digest>.json` describes it and holds its hash. Both are written under temporary names and renamed, the
description last. An artifact without a matching description is ignored. A file lock, which the operating system
releases when its process ends, lets one process build while the others wait for the result.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from warpfuse.engine import file_lock
from warpfuse.engine.bundle import sha256_of
from warpfuse.engine.errors import EngineError
from warpfuse.engine.files import write_whole, written_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ArtifactKey:
    """Everything an artifact depends on. Artifacts whose keys differ in any field are different.

    network  sha256 of the exported network and its external data
    inputs   (name, shape) of every input whose shape the network leaves open, batch and size included
    dtype    element type it was built in; "as exported" if the network carries its types
    backend, version  the backend that built it, and the version of its library, not of the Python package
    gpu      the card or compute capability it was built for
    options  (name, value) of the build options
    """

    network: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: str
    backend: str
    version: str
    gpu: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """The artifact's name: a hash of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """The folder of the cache: $WARPFUSE_CACHE, else the user's cache folder."""
    named = os.environ.get("WARPFUSE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("warpfuse"))


def network_hash(path: Path) -> str:
    """sha256 over an ONNX file and the files of its weights (`<name>.data`, `<name>_data`)."""
    parts = [
        path,
        *(p for p in (path.with_name(f"{path.name}.data"), path.with_name(f"{path.name}_data")) if p.is_file()),
    ]
    return hashlib.sha256("".join(sha256_of(part) for part in parts).encode()).hexdigest()


class ArtifactCache:
    """Artifacts in one folder. Several processes and threads may use it at once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def find(self, key: ArtifactKey) -> Path | None:
        """The artifact of this key; None if it is absent, incomplete or has another description."""
        path, description = self._paths(key)
        try:
            about = json.loads(description.read_text(encoding="utf-8"))
            whole = about == _about(key, path.stat().st_size, sha256_of(path))
        except (OSError, ValueError):
            return None
        return path if whole else None

    def get(self, key: ArtifactKey, build: Callable[[Path], None]) -> Path:
        """The artifact of this key. If there is none, `build(path)` writes it to a temporary path.

        If another process is building the same artifact, wait for its result. Errors of `build` pass through and leave
        no file behind. Raises EngineError when the folder cannot be written.
        """
        found = self.find(key)
        if found is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f"{key.digest}.lock").open("w")
        except OSError as error:
            raise EngineError(
                f"cache {self.folder} cannot be written: {error}. Set WARPFUSE_CACHE to a folder"
            ) from None
        with lock:
            file_lock.lock(lock.fileno())
            return self.find(key) or self._build(key, build)

    def adopt(self, key: ArtifactKey, path: Path) -> Path:
        """The artifact of this key. If there is none, take `path` for it: linked, or copied from another file system.

        Raises EngineError when the folder cannot be written.
        """
        return self.get(key, lambda fresh: _link_or_copy(path, fresh))

    def forget_locks(self) -> None:
        """Remove the lock files, of a folder in which nobody builds any more."""
        for lock in self.folder.glob("*.lock"):
            lock.unlink()

    def contents(self) -> tuple[int, int]:
        """(number of artifacts, bytes of all files) in the folder; (0, 0) if it does not exist."""
        files = [path for path in self.folder.glob("*") if path.is_file()] if self.folder.is_dir() else []
        described = {path.stem for path in files if path.suffix == ".json"}
        count = sum(path.suffix == ".bin" and path.stem in described for path in files)
        return count, sum(path.stat().st_size for path in files)

    def _build(self, key: ArtifactKey, build: Callable[[Path], None]) -> Path:
        path, description = self._paths(key)
        for stale in (description, path, *self.folder.glob(f".{key.digest}.*.tmp")):
            stale.unlink(missing_ok=True)  # left by a killed build; this process has the lock, so nobody writes it
        with written_whole(path) as fresh:
            build(fresh)
            about = _about(key, fresh.stat().st_size, sha256_of(fresh))
        write_whole(description, json.dumps(about, indent=1).encode())
        return path

    def _paths(self, key: ArtifactKey) -> tuple[Path, Path]:
        return self.folder / f"{key.digest}.bin", self.folder / f"{key.digest}.json"


def _link_or_copy(path: Path, fresh: Path) -> None:
    try:
        os.link(path, fresh)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, fresh)


def _about(key: ArtifactKey, size: int, sha256: str) -> dict[str, object]:
    fields: dict[str, object] = json.loads(json.dumps(asdict(key)))
    return {"format": FORMAT, **fields, "bytes": size, "sha256": sha256}
