"""The command on a real RTSP server: how a run on a live source goes and ends, and that it never shows a password."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys

import av
import psutil
import pytest
from support import servers


@pytest.fixture
def server():
    servers.need_gstreamer()
    server = servers.RtspServer(account="anna:Pa55-W0rd")
    server.start("64x48")
    yield server
    server.kill()


@pytest.fixture
def begin(server, exact_bundle, tmp_path):
    """begin(*arguments) -> the process of a run on the server, with its password in the address."""
    begun = []

    def start(*arguments):
        url = server.url.replace("//", "//anna:Pa55-W0rd@")
        command = [sys.executable, "-c", "from warpfuse.cli import main; main()", "run", "--source", url]
        command += ["--sink", str(tmp_path / "out.mp4"), "--stats", str(tmp_path / "stats.json")]
        command += ["--bundle", str(exact_bundle), *arguments]
        begun.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return begun[0]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def until(process, words):
    """The lines on stderr up to the one with these words."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"it never said {words!r}: {lines}")


def finished(process, tmp_path):
    """(exit code, what stderr said, the figures, frames in the file)."""
    _, err = process.communicate(timeout=60)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    text = (tmp_path / "stats.json").read_text()
    for secret in ("anna", "Pa55"):
        assert secret not in text and secret not in err
    return process.returncode, err, json.loads(text), frames


def test_a_number_of_frames_ends_the_run(begin, tmp_path):
    code, _, stats, frames = finished(begin("--frames", "8"), tmp_path)
    counts = stats["frames"]
    assert (code, frames) == (0, counts["out"])
    assert counts["out"] + counts["dropped"] == counts["in"] and counts["out"] > 0
    # eight leave the source, and those nobody had time for besides; what is lost with a process is made up for
    assert counts["in"] - stats["drops"]["late"] <= 8 <= counts["in"] or stats["restarts"] > 0
    assert stats["source"]["state"] == "live" and stats["source"]["entered"] == {"live": 1}


def test_an_interrupt_while_the_camera_is_frozen_leaves_a_whole_file(begin, server, tmp_path):
    process = begin()
    until(process, ": live")
    server.freeze()
    until(process, ": stalled")
    process.send_signal(signal.SIGINT)
    code, _, stats, frames = finished(process, tmp_path)
    server.thaw()
    assert code == 130 and frames == stats["frames"]["out"] > 0
    assert stats["source"]["entered"]["stalled"] >= 1


def test_a_source_lost_for_good_is_exit_3_one_line_and_a_whole_file(begin, server, tmp_path):
    process = begin()
    until(process, ": live")
    server.kill()
    until(process, ": reconnecting")
    server.account = "anna:another"
    server.start("64x48")
    code, err, stats, frames = finished(process, tmp_path)
    assert code == 3 and frames == stats["frames"]["out"] > 0
    (line,) = [line for line in err.splitlines() if line.startswith("warpfuse: ")]
    assert "rtsp://***@127.0.0.1" in line and "the source is lost: the user name or password was refused" in line
    assert stats["source"]["state"] == "lost" and stats["source"]["last_fault"] == "denied"


def test_a_drawing_shows_no_password(command, exact_bundle):
    url = "rtsp://anna:Pa55-W0rd@cam/stream1"
    code, out, err = command("graph", "--set", f"source={url}", "--set", f"sinks=[{url.replace('rtsp', 'rtmp')}]")
    assert code == 0 and "cam/stream1" in out and "anna" not in out + err and "Pa55" not in out + err


@contextlib.contextmanager
def silent(scheme):
    """(address of a server that takes a connection and never answers, a function that waits for one)."""
    kind = socket.SOCK_DGRAM if scheme == "srt" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.settimeout(60)
        server.bind(("127.0.0.1", 0))
        taken = []
        if scheme == "srt":
            wait = lambda: server.recv(2000)  # noqa: E731
        else:
            server.listen()
            wait = lambda: taken.append(server.accept()[0])  # noqa: E731
        try:
            yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}/live", wait
        finally:
            for connection in taken:
                connection.close()


@pytest.mark.parametrize(
    "scheme, arguments",
    [
        ("rtsp", ["--sink", "null:"]),
        ("rtsp", ["--sink", "null:", "--workers", "one"]),
        ("http", ["--sink", "null:", "--source", "pattern:", "--sink", "null:"]),
        ("rtsp", ["--page", "0"]),
        ("srt", ["--sink", "null:"]),
    ],
    ids=["in processes", "in one", "of several streams", "with a page", "by a program"],
)
def test_an_interrupt_while_a_source_is_being_connected_ends_the_run_at_once(exact_bundle, scheme, arguments):
    """The control is `test_live.py`'s: without it the source is lost, which is exit 3."""
    if scheme == "srt" and not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg program: apt-get install ffmpeg")
    if "--page" in arguments:
        pytest.importorskip("fastapi", reason="the control page needs the extra 'web'")
    with silent(scheme) as (url, wait):
        command = [sys.executable, "-c", "from warpfuse.cli import main; main()", "run", "--source", url]
        with subprocess.Popen([*command, "--bundle", str(exact_bundle), *arguments], stderr=subprocess.PIPE) as process:
            try:
                wait()
                family = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130 and b"lost" not in err and b"reached" not in err, err
        assert psutil.wait_procs(family, timeout=30)[1] == []
