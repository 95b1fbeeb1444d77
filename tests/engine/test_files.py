import os
import signal
import subprocess
import sys

import pytest

from warpfuse.engine.errors import one_line
from warpfuse.engine.files import write_whole, written_whole


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "figures.json"
    path.write_bytes(b"old")
    with written_whole(path) as fresh:
        fresh.write_bytes(b"new")
        assert path.read_bytes() == b"old", "control: a reader meanwhile sees the old file"
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "figures.json"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as fresh:
        fresh.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "figures.json"
    path.write_bytes(b"old")
    program = (
        "import os, pathlib, sys\nfrom warpfuse.engine.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as fresh:\n"
        "    fresh.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2, "control: it was killed in the middle"


def test_the_permissions_are_those_asked_for_less_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "all", b"")
        write_whole(tmp_path / "mine", b"", mode=0o600)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("all", "mine")] == [0o644, 0o600]


def test_what_a_link_names_is_replaced_not_the_link(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_pipe_or_a_device_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"figures")
        assert os.read(reader, 100) == b"figures"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("error", "longest", "line"),
    [
        (ValueError("two\n  lines\tof text"), None, "two lines of text"),
        (ValueError("abcdef"), 3, "abc"),
        (ValueError(), None, "ValueError"),
        ("a text\n", None, "a text"),
    ],
)
def test_an_error_is_told_on_one_line(error, longest, line):
    assert one_line(error, longest) == line
