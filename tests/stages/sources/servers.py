"""Real servers for live sources, each a process of its own on a free port of 127.0.0.1."""

import contextlib
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

_RTSP = Path(__file__).with_name("rtsp_server.py")
_SYSTEM_PYTHON = "/usr/bin/python3"
COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


class RtspServer:
    """gst-rtsp-server with a picture of one colour at /live. `start` after `kill` takes the same port again."""

    def __init__(self, account: str = "") -> None:
        self.account = account
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/live"

    @property
    def port(self) -> str:
        return self._port

    def start(self, size: str = "128x96", colour: str = "red") -> None:
        red, green, blue = COLOURS[colour]
        argb = str(0xFF << 24 | red << 16 | green << 8 | blue)
        command = [_SYSTEM_PYTHON, str(_RTSP), self._port, size, argb, *filter(None, [self.account])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip()
        assert self._port.isdigit() and self._port != "0", "the RTSP server did not start"

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def need_gstreamer() -> None:
    """Skip where the RTSP server's parts are absent."""
    test = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
        "Gst.init(None); assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
    )
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([_SYSTEM_PYTHON, "-c", test], capture_output=True, check=False).returncode == 0:
            return
    pytest.skip(
        "no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{good,ugly}"
    )


def need_ffmpeg() -> str:
    """The ffmpeg program; skip without it."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no ffmpeg program: apt-get install ffmpeg")
    return program
