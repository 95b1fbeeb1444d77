"""Law: however a run of a file ends, what it made is a whole file under its name, or it is gone."""

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import av
import psutil
import pytest
from support.waiting import until

PROGRAM = [sys.executable, "-c", "from warpfuse.cli import main; main()"]
ON_ITS_TERMINAL = [sys.executable, "-c", "import fcntl, termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0); " + PROGRAM[2]]
STARTING_S = 300  # a machine with much else to do takes long to load torch
HANG_UPS = [(signal.SIGHUP, signal.SIGHUP), (signal.SIGTERM, signal.SIGHUP)]


@pytest.fixture
def begin(exact_bundle, tmp_path):
    """begin(**how) -> the process of a run that would go on for long, once it has written pictures.

    meanwhile  is called again and again until then"""
    begun = []

    def it(*more, program=PROGRAM, meanwhile=lambda: None, **how):
        source = ["--source", "pattern:96x64@25,frames=1000000", "--sink", str(tmp_path / "out.mp4")]
        arguments = ["run", *source, "--bundle", exact_bundle, "--stats", str(tmp_path / "stats.json"), *more]
        process = subprocess.Popen([*program, *arguments], **{"stderr": subprocess.PIPE, "preexec_fn": heeds, **how})
        begun.append(process)
        grows = lambda: meanwhile() or process.poll() is not None or writes(process.pid, tmp_path)  # noqa: E731
        until(grows, "the file grows", STARTING_S)
        assert process.poll() is None, "it ended by itself"
        return process

    yield it
    for process in begun:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def heeds():
    """In the new process: signals mean what they mean by default, also where these tests run behind nohup or with &."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def writes(pid, folder):
    """Somebody of that family has written to a file of the folder, one without a name included."""
    with suppress(OSError, psutil.NoSuchProcess):  # a handle or a process that has just gone
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        handles = [handle for one in family for handle in Path(f"/proc/{one.pid}/fd").iterdir()]
        ours = [handle for handle in handles if str(handle.readlink()).startswith(f"{folder}/")]
        return any(handle.stat().st_size for handle in ours)
    return False


def frames_of(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def whole(folder):
    """The folder holds the file and the figures and nothing else, and they agree."""
    assert sorted(path.name for path in folder.iterdir()) == ["out.mp4", "stats.json"]
    figures = json.loads((folder / "stats.json").read_text())
    assert frames_of(folder / "out.mp4") == figures["frames"]["out"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("workers", ["one", "stages"])
def test_a_signal_to_its_group_ends_a_run_with_a_whole_file(begin, tmp_path, number, workers):
    process = begin("--workers", workers, start_new_session=True)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=STARTING_S)
    assert process.returncode == 130 and b"Traceback" not in err, err
    whole(tmp_path)


@pytest.mark.parametrize("numbers", HANG_UPS, ids=["closed terminal", "logout"])
def test_a_hang_up_is_not_the_second_signal_that_ends_at_once(begin, tmp_path, numbers):
    process = begin()
    for number in numbers:
        process.send_signal(number)
    process.communicate(timeout=STARTING_S)
    assert process.returncode == 130
    whole(tmp_path)


def test_a_terminal_that_is_closed_ends_a_run_with_a_whole_file(begin, tmp_path):
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)

    def shown():
        with suppress(BlockingIOError):
            os.read(ours, 1 << 16)  # else it is full, and who draws on it waits

    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = begin(program=ON_ITS_TERMINAL, meanwhile=shown, **ends, start_new_session=True)
    os.close(theirs)
    os.close(ours)  # as the terminal's window does: its programs are sent SIGHUP, and writing to it fails from now on
    assert process.wait(timeout=STARTING_S) == 130
    whole(tmp_path)


def test_nobody_who_reads_what_is_said_is_no_reason_to_end(begin, tmp_path):
    process = begin()
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=STARTING_S) == 130
    whole(tmp_path)


@pytest.mark.parametrize("workers", ["one", "stages"])
def test_a_run_that_is_killed_leaves_nothing(begin, tmp_path, workers):
    process = begin("--workers", workers)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=STARTING_S)
    psutil.wait_procs(family, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_a_hang_up_that_was_to_be_ignored_is(begin, tmp_path):
    """As nohup does it."""
    process = begin(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    before = psutil.Process(process.pid).cpu_times().user
    until(lambda: psutil.Process(process.pid).cpu_times().user > before + 0.2, "it goes on")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=STARTING_S)
    whole(tmp_path)
