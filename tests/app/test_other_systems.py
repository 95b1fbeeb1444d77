"""What runs in one process runs without what Linux alone has.

Told in an interpreter in which our modules find neither the modules nor the functions that Windows lacks. It stands for
Windows and macOS as far as it can: the systems themselves have not been tried.
"""

import json
import subprocess
import sys

import av
import pytest

STRIPPED = """
import builtins, fcntl, json, sys, types

MODULES = {"fcntl", "resource", "termios", "pwd", "grp"}
LACKS = {
    "os": {"fork", "getuid", "geteuid", "getgid", "sched_getaffinity", "posix_fallocate", "mkfifo", "pipe2", "killpg",
           "set_blocking", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_TMPFILE", "WNOHANG", "setsid", "major"},
    "signal": {"SIGKILL", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGUSR1"},
    "socket": {"AF_UNIX", "SOCK_SEQPACKET", "MSG_DONTWAIT"},
    "select": {"poll", "epoll"},
    "mmap": {"MAP_SHARED", "PROT_READ", "PROT_WRITE"},
}

class Without(types.ModuleType):
    def __init__(self, whole, lacks):
        super().__init__(whole.__name__)
        self.__dict__["_whole"], self.__dict__["_lacks"] = whole, lacks
    def __getattr__(self, name):
        if name in self._lacks:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} here")
        return getattr(self._whole, name)

# The locks of Windows, by those of this system.
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK = 2
msvcrt.locking = lambda handle, mode, size: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

whole = builtins.__import__
def stripped(name, globals=None, locals=None, fromlist=(), level=0):
    if globals and str(globals.get("__name__", "")).split(".")[0] in ("warpfuse", "__main__"):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == "msvcrt":
            return msvcrt
        if name in LACKS:
            return Without(whole(name), LACKS[name])
    return whole(name, globals, locals, fromlist, level)
builtins.__import__ = stripped
"""

HAS = (
    STRIPPED
    + """
import os, signal, socket
try:
    import fcntl
except ImportError:
    fcntl = None
print(json.dumps([fcntl is None, *(hasattr(os, n) for n in ("fork", "getuid", "getpid")), hasattr(socket, "AF_UNIX")]))
"""
)

COMMAND = (
    STRIPPED
    + """
from warpfuse.cli import main
main()
"""
)

PIPELINE = (
    STRIPPED
    + """
import numpy as np
import warpfuse
with warpfuse.Pipeline(prompt="same", bundle=sys.argv[1], size=(96, 64), fusion=0) as pipeline:
    picture = np.full((64, 96, 3), 90, np.uint8)
    print(int(np.abs(pipeline.push(picture).astype(int) - picture).max()))
"""
)

ASKED = (
    STRIPPED
    + """
import threading
from warpfuse.graph.control import messages
from warpfuse.graph.control.run_directory import find_run
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import Observers, run
source = "pattern:96x64@25,live=1,frames=100000"
config = validate({"source": source, "sinks": ["null:"], "bundle": sys.argv[1], "workers": "one", "name": "desk"})
stop, done = threading.Event(), []
thread = threading.Thread(target=lambda: done.append(run(config, stop=stop, observers=Observers(control=True))))
thread.start()
while thread.is_alive():
    try:
        frames = messages.ask("desk", messages.GetStats()).stats["frames"]["out"]
    except Exception:
        frames = 0
    if frames > 3:
        break
file = find_run("desk") / "control"
port, token = file.read_text().split()
mode = file.stat().st_mode & 0o777
file.write_text(f"{port} {'0' * len(token)}")
try:
    messages.ask("desk", messages.Stop())
    denied = ""
except Exception as error:
    denied = str(error)
file.write_text(f"{port} {token}")
messages.ask("desk", messages.Stop())
thread.join()
print(json.dumps([frames, mode, denied, done[0].interrupted]))
"""
)


@pytest.fixture
def told(tmp_path, short_folder, monkeypatch):
    """told(code, *arguments) -> what the code printed."""
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))

    def run(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_control_our_modules_find_less_there(told):
    assert json.loads(told(HAS)) == [True, False, False, True, False]


def test_the_doctor_examines(told):
    assert len(json.loads(told(COMMAND, "doctor", "--json"))) > 0


def test_a_file_is_restyled_into_a_file(told, exact_bundle, tmp_path):
    out = tmp_path / "out.mp4"
    told(COMMAND, "run", "--source", "pattern:96x64@25,frames=12", "--sink", out, "--bundle", exact_bundle)
    told(COMMAND, "run", out, tmp_path / "again.mp4", "--bundle", exact_bundle)
    with av.open(str(tmp_path / "again.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_run_has_a_page(told, exact_bundle, tmp_path):
    pytest.importorskip("fastapi", reason="the control page needs the extra 'web'")
    figures = tmp_path / "figures.json"
    source = ("--source", "pattern:96x64@25,frames=12", "--bundle", exact_bundle)
    told(COMMAND, "run", *source, "--page", "0", "--stats", figures)
    assert json.loads(figures.read_text())["frames"]["out"] == 12


def test_a_pipeline_restyles_pictures(told, exact_bundle):
    assert int(told(PIPELINE, exact_bundle)) <= 2


def test_a_live_run_in_one_process_is_asked_over_loopback_with_its_token(told, exact_bundle):
    frames, mode, denied, interrupted = json.loads(told(ASKED, exact_bundle))
    assert frames > 3 and mode == 0o600 and interrupted
    assert denied == "this is not the token of the run"
