"""A folder for each run under way. It holds the run's sockets, and a lock that shows that the run is alive.

$XDG_RUNTIME_DIR/warpfuse/NAME/     or /tmp/warpfuse-UID/NAME/, mode 0700
"""

import os
import re
import shutil
import stat
from pathlib import Path

from platformdirs import user_runtime_path

from warpfuse.engine.file_lock import is_held, try_lock
from warpfuse.graph.errors import ConfigError

_LONGEST = 107 - len("/line-") - 36  # longest path of a Unix socket, minus the longest file name in a run's folder


def runs_folder() -> Path:
    """The folder with the folders of this user's runs; made if missing.

    Raises ConfigError when its path is too long for sockets or when others may enter it.
    """
    given = os.environ.get("WARPFUSE_RUN") or os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(given) / "warpfuse" if given else _usual_folder()
    if len(str(folder)) > _LONGEST - 33:
        most = _LONGEST - 33 - len("/warpfuse")
        raise ConfigError(
            f"{folder} is too long for sockets; set WARPFUSE_RUN to a folder of {most} characters or less"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.lstat()
    own = not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o077)
    if not stat.S_ISDIR(about.st_mode) or not own:
        raise ConfigError(f"{folder}: expected a folder that only you can enter; remove it, or set WARPFUSE_RUN")
    return folder


def _usual_folder() -> Path:
    """The default: below /tmp, and on Windows below the user's own runtime folder."""
    if hasattr(os, "getuid"):
        return Path("/tmp") / f"warpfuse-{os.getuid()}"
    return user_runtime_path("warpfuse", appauthor=False)


class RunDirectory:
    """The locked folder of one run. A context manager, which removes it at the end.

    Raises ConfigError when a run of that name is under way.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = runs_folder() / name
        self._lock = _lock(self.path)
        if self._lock is None:
            raise ConfigError(
                f"a run named {name!r} is under way{_whose(self.path)}. Give this one another: --name NAME"
            )
        for left in self.path.iterdir():  # left by a run that was killed
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        (self.path / "pid").write_text(str(os.getpid()))

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder and free the name. A second call does nothing."""
        if self._lock is None:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def free_name(name: str) -> str:
    """The name, or the first of NAME-2, NAME-3 ... that no run under way has."""
    names = [name, *(f"{name[:28]}-{number}" for number in range(2, 100))]
    folder = runs_folder()
    return next((n for n in names if not is_held(folder / n / "lock")), name)


def name_after(source: str) -> str:
    """A name for a run, from its source: a file's stem, or the scheme alone of a URL, which may hold a password."""
    scheme, colon, rest = source.partition(":")
    plain = scheme if colon and "/" not in scheme else Path(source).stem
    if scheme == "camera":
        plain = f"camera{rest.split(',')[0]}"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")[:28] or "run"


def find_run(name: str) -> Path:
    """The folder of a run under way. Raises ConfigError for an unknown name, with the names of the runs under way."""
    folder = runs_folder()
    if re.fullmatch(r"[A-Za-z0-9_.-]+", name) and is_held(folder / name / "lock"):
        return folder / name
    running = sorted(path.name for path in folder.iterdir() if is_held(path / "lock"))
    known = f"under way: {', '.join(running)}" if running else "none is under way"
    raise ConfigError(f"there is no run named {name!r}; {known}")


def _lock(path: Path) -> int | None:
    """Take the lock of a folder, which is made if missing. Returns its descriptor; None: another process has it."""
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except FileNotFoundError:
            continue  # its owner has just removed it
        if not try_lock(handle):
            os.close(handle)
            return None
        try:
            if os.stat(path / "lock").st_ino == os.fstat(handle).st_ino:  # noqa: PTH116
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)


def _whose(path: Path) -> str:
    try:
        return f" (process {int((path / 'pid').read_text())})"
    except (OSError, ValueError):
        return ""
