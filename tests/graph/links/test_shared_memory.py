"""Files in shared memory: theirs alone, refused in a sentence when there is no room, gone with their owner."""

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from warpfuse.graph.errors import SharedMemoryFull, WireError
from warpfuse.graph.links import shared_memory
from warpfuse.graph.links.shared_memory import RunFolder, SharedTable, sweep


@pytest.fixture
def root(tmp_path):
    return tmp_path / "warpfuse-test"


def test_folder_and_files_are_the_owners_alone(root):
    with RunFolder("a run/../..", root) as folder:
        SharedTable.create(folder.path / "t", 2, 4096)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (root, folder.path, folder.path / "t")]
    assert modes == [0o700, 0o700, 0o600]
    assert folder.path.parent == root
    assert not folder.path.exists()


def test_a_root_that_others_may_enter_is_refused(root):
    root.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="0700"):
        RunFolder("run", root)


def test_too_little_memory_is_an_error_that_says_how_much(root, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shared_memory.os, "posix_fallocate", full)
    with RunFolder("run", root) as folder:
        with pytest.raises(SharedMemoryFull, match=r"needs 40 MiB in .* MiB are free .*--shm-size"):
            SharedTable.create(folder.path / "t", 10, 4 << 20)
        assert not (folder.path / "t").exists()


def test_the_memory_is_there_before_the_first_byte_is_written(root):
    """Under a limit of the system's own, in a process of its own: an error, no signal."""
    code = f"""
import resource
from pathlib import Path
from warpfuse.graph.errors import SharedMemoryFull
from warpfuse.graph.links.shared_memory import RunFolder, SharedTable
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with RunFolder("run", Path({str(root)!r})) as folder:
    SharedTable.create(folder.path / "small", 2, 4096)
    try:
        SharedTable.create(folder.path / "large", 10, 1 << 20)
    except SharedMemoryFull as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("shared memory: a link needs 10 MiB")


@pytest.mark.parametrize(
    "place, slots, slot_bytes",
    [("../x/t", 2, 4096), ("run", 2, 4096), ("/etc/passwd", 2, 4096), ("{run}/none", 2, 4096), ("{run}/t", 3, 4096),
     ("{run}/t", 2, 8192), ("{run}/t", 2, 2**40), ("{run}/owner", 2, 4096), ("{run}/link", 2, 4096)],
)  # fmt: skip
def test_what_is_no_table_of_the_shape_agreed_is_not_mapped(root, place, slots, slot_bytes):
    with RunFolder("run", root) as folder:
        SharedTable.create(folder.path / "t", 2, 4096)
        (folder.path / "link").symlink_to(folder.path / "t")
        with pytest.raises(WireError):
            SharedTable.open(place.format(run=folder.path.name), slots, slot_bytes, root)
        SharedTable.open(f"{folder.path.name}/t", 2, 4096, root).close()


def _owner(root):
    code = f"""
import sys
from pathlib import Path
from warpfuse.graph.links.shared_memory import RunFolder, SharedTable
folder = RunFolder("other", Path({str(root)!r}))
SharedTable.create(folder.path / "t", 2, 4096)
print(folder.path.name, flush=True)
sys.stdin.read()
"""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_sweep_removes_what_the_dead_left_and_nothing_of_the_living(root):
    with _owner(root) as dead, _owner(root) as living, RunFolder("mine", root) as mine:
        try:
            names = [process.stdout.readline().strip() for process in (dead, living)]
            assert sweep(root) == []
            dead.send_signal(signal.SIGKILL)
            dead.wait(30)
            assert sweep(root) == [root / names[0]]
            assert {path.name for path in root.iterdir()} == {".lock", names[1], mine.path.name}
        finally:
            for process in (dead, living):
                process.kill()
    assert [path.name for path in sweep(root)] == [names[1]]


def test_a_stopped_owner_is_a_living_one(root):
    with _owner(root) as owner:
        try:
            owner.stdout.readline()
            os.kill(owner.pid, signal.SIGSTOP)
            assert sweep(root) == []
        finally:
            owner.kill()
