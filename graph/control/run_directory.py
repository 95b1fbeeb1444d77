"""A folder for each run under way: its sockets, and the lock that says it lives and holds its name.

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

_LONGEST = 107 - len("/line-") - 36  # of a unix socket's path, less the longest name in a run's folder


def runs_folder() -> Path:
    """Where the folders of this user's runs are. Made if it is not there. Raises ConfigError if another owns it."""
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
    """On Windows in the user's own folder, which is nobody else's."""
    if hasattr(os, "getuid"):
        return Path("/tmp") / f"warpfuse-{os.getuid()}"
    return user_runtime_path("warpfuse", appauthor=False)


class RunDirectory:
    """The folder of one run, held by a lock. A context manager; removed at the end.

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
        for left in self.path.iterdir():  # of a run that was killed
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
    """The name, or with a number behind it the first that no run under way has."""
    names = [name, *(f"{name[:28]}-{number}" for number in range(2, 100))]
    folder = runs_folder()
    return next((n for n in names if not is_held(folder / n / "lock")), name)


def name_after(source: str) -> str:
    """A name for a run, after its source: the file's, or the kind of device. Never what a URL may hide."""
    scheme, colon, rest = source.partition(":")
    plain = scheme if colon and "/" not in scheme else Path(source).stem
    if scheme == "camera":
        plain = f"camera{rest.split(',')[0]}"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")[:28] or "run"


def find_run(name: str) -> Path:
    """The folder of a run under way. Raises ConfigError that lists those that are."""
    folder = runs_folder()
    if re.fullmatch(r"[A-Za-z0-9_.-]+", name) and is_held(folder / name / "lock"):
        return folder / name
    running = sorted(path.name for path in folder.iterdir() if is_held(path / "lock"))
    known = f"under way: {', '.join(running)}" if running else "none is under way"
    raise ConfigError(f"there is no run named {name!r}; {known}")


def _lock(path: Path) -> int | None:
    """Hold the folder's lock, made if need be; None: another process has it."""
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
