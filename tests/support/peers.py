"""Real servers on 127.0.0.1 for publishing streams to, and what they received."""

import math
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from warpfuse.stages.sources.display import Display

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, which has the bindings of GStreamer
_RTSP_SERVER = Path(__file__).with_name("rtsp_recorder.py")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Peer:
    """A server in a process of its own; `received` is the file of what it got, as it came, not re-encoded."""

    def __init__(self, url: str, command: list[str], received: Path, ready: str) -> None:
        self.url, self.received = url, received
        self._command, self._ready = command, ready
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if self._ready in line:
                return
        raise AssertionError(f"{self._command[0]} ended before it was ready")

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def finish(self) -> None:
        """Wait until it has written what it received."""
        if "ffmpeg" in self._command[0]:
            try:
                self._process.wait(20)  # a listener ends with its publisher
            except subprocess.TimeoutExpired:
                self._process.terminate()
        else:
            self._process.terminate()
        self._process.wait(10)


@contextmanager
def peer(scheme: str, folder: Path, login: str = "", query: str = "", sound: bool = False) -> Iterator[Peer]:
    """A server of `scheme`, for a stream with or without sound; the test is skipped where the programs are absent."""
    received = folder / "received.ts"
    port = free_port(socket.SOCK_DGRAM if scheme == "srt" else socket.SOCK_STREAM)
    if scheme == "rtsp":
        _require_gstreamer()
        url = f"rtsp://127.0.0.1:{port}/live"
        command = [SYSTEM_PYTHON, str(_RTSP_SERVER), str(port), str(received), "sound" if sound else "", login]
        ready = "ready"
    else:
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            pytest.skip("the program ffmpeg is absent: apt install ffmpeg")
        url = f"rtmp://127.0.0.1:{port}/live/key" if scheme == "rtmp" else f"srt://127.0.0.1:{port}{query}"
        listen = ["-listen", "1"] if scheme == "rtmp" else []
        at = url if scheme == "rtmp" else f"{url}{'&' if query else '?'}mode=listener"
        # '-loglevel verbose' shows the address just before it is listened on.
        quiet = ["-hide_banner", "-nostats", "-loglevel", "verbose"]
        command = [ffmpeg, *quiet, *listen, "-i", at, "-c", "copy", "-y", str(received)]
        ready = ""
    running = Peer(url, command, received, ready) if ready else _Listener(url, command, received, port, scheme)
    try:
        yield running
    finally:
        running.thaw()
        running.kill()


class _Listener(Peer):
    """ffmpeg waiting for a publisher. It does not report when it listens, so the kernel's tables are read."""

    def __init__(self, url: str, command: list[str], received: Path, port: int, scheme: str) -> None:
        self._table = Path("/proc/net/udp" if scheme == "srt" else "/proc/net/tcp")
        self._port = f":{port:04X} "
        super().__init__(url, command, received, "")

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while self._port not in self._table.read_text():
            assert self._process.poll() is None, self._process.communicate()[0][-400:]


def _require_gstreamer() -> None:
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True).returncode:
        pytest.skip("gst-rtsp-server is absent: apt install gir1.2-gst-rtsp-server-1.0 python3-gi")


def pictures(path: Path) -> Iterator[tuple[float, Any, npt.NDArray[np.uint8]]]:
    """(seconds, decoded frame, RGB as displayed) of the pictures that a peer received. An incomplete end is ignored.

    The RTSP server stamps pictures by its own clock on arrival. Pictures that arrive together have no stamp: nan.
    """
    with av.open(str(path)) as opened:
        display = None
        stream = opened.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in opened.decode(stream):
            display = display or Display(frame, None, None)
            yield (math.nan if frame.time is None else float(frame.time)), frame, display(frame)
