"""Bundles by the sha256 of their description, fetched once by each machine from another place and checked.

A description holds the sha256 of every file of its bundle, so its own sha256 stands for all of them. A bundle is
written beside its place, checked file by file and then renamed: a folder that has its name is whole.
"""

import hashlib
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from warpfuse.engine import file_lock
from warpfuse.engine.artifacts import cache_folder
from warpfuse.engine.bundle import DESCRIPTION, read_description, sha256_of
from warpfuse.engine.errors import BundleError

PINNED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)@sha256:(?P<sha256>[0-9a-f]{64})")
"""How a bundle is named by its sha256: turbo@sha256:9f2c..."""

Origin = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Opens a file of a bundle, by its name in the description. Raises OSError."""

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0


def folder_origin(folder: Path) -> Origin:
    """The files of a bundle in a folder."""
    return lambda file: (folder / file).open("rb")


def head_origin(address: str, sha256: str, token: str) -> Origin:
    """The files of a bundle that the head of a cluster serves. address: of its page, as in http://10.0.0.1:8080"""

    def opened(file: str) -> AbstractContextManager[IO[bytes]]:
        url = f"{address}/bundles/{sha256}/{quote(file)}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        answer: AbstractContextManager[IO[bytes]] = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        return answer

    return opened


class BundleStore:
    """A folder of bundles, each in a folder called after its sha256. Several processes may use it at once.

    folder  none: in the cache of the user
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "bundles"

    def find(self, sha256: str) -> Path | None:
        """The folder of a bundle; None: it is not here."""
        place = self.folder / sha256
        return place if (place / DESCRIPTION).is_file() else None

    def keep(self, folder: Path) -> str:
        """Copy a bundle into the store, unless it is there. Returns NAME@sha256:..., by which it is found.

        Raises BundleError: a file of it is missing or changed, or the store cannot be written.
        """
        about = read_description(folder)
        sha256 = sha256_of(folder / DESCRIPTION)
        self.fetch(f"{about.name}@sha256:{sha256}", folder_origin(folder), str(folder))
        return f"{about.name}@sha256:{sha256}"

    def fetch(self, pinned: str, origin: Origin, where: str) -> Path:
        """The folder of a bundle, which is copied from its origin if it is not here.

        If another process is fetching the same bundle, wait for it. After an error nothing of the bundle is left.

        pinned  NAME@sha256:...
        where   the origin, for messages
        Raises BundleError: a file cannot be had, or has another sha256; the store cannot be written.
        """
        named = PINNED.fullmatch(pinned)
        if named is None:
            raise BundleError(f"bundle {pinned!r}: expected NAME@sha256: and 64 digits of 0-9a-f")
        found = self.find(named["sha256"])
        if found is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f"{named['sha256']}.lock").open("w")
        except OSError as error:
            raise BundleError(f"bundles cannot be kept in {self.folder}: {error.strerror}") from None
        with lock:
            file_lock.lock(lock.fileno())
            return self.find(named["sha256"]) or self._fetch(named["name"], named["sha256"], origin, where)

    def _fetch(self, name: str, sha256: str, origin: Origin, where: str) -> Path:
        for left in self.folder.glob(f".{sha256}.*.tmp"):  # by a killed process: this one has the lock
            shutil.rmtree(left)
        fresh = self.folder / f".{sha256}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            fresh.mkdir()
            _copy(origin, DESCRIPTION, fresh, sha256, f"bundle {name} from {where}")
            for file, expected in read_description(fresh).files.items():
                _copy(origin, file, fresh, expected, f"bundle {name} from {where}")
            fresh.rename(self.folder / sha256)
        except urllib.error.HTTPError as error:
            why = "the head does not have it" if error.code == 404 else f"the head answers {error.code}"
            raise BundleError(f"bundle {name} cannot be had from {where}: {why}; `cluster apply` it anew") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(getattr(error, "reason", error))
            raise BundleError(f"bundle {name} cannot be had from {where}: {why}") from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return self.folder / sha256


def _copy(origin: Origin, file: str, folder: Path, expected: str, what: str) -> None:
    """Copy a file of a bundle, and check it. Raises OSError, BundleError."""
    path, digest = folder / file, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with origin(file) as source, path.open("wb") as copy:
        while block := source.read(_BLOCK):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    if digest.hexdigest() != expected:
        raise BundleError(
            f"{what}: {file} has the sha256 {digest.hexdigest()[:12]}..., expected {expected[:12]}...;"
            " nothing was kept. Copy or export the bundle there again"
        )
