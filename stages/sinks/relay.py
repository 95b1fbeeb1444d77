"""The relay: a process that sends a stream to its peer. It is fed through a pipe with a deadline."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.address import Address

_PIPE_BYTES = 1 << 16  # a fraction of a second of video, since data waiting in the pipe delay the stream
_GRACE_S = 2.0
_REFUSED = ("Incorrect passphrase", "Password required")  # libsrt's messages


class Gone(Exception):
    """The connection is lost. Its text says why. final: another attempt would be refused as well."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@dataclass(frozen=True, slots=True)
class RelayProgram:
    """A program that publishes a scheme: its command, and additions to the environment."""

    command: list[str]
    environment: dict[str, str]


def program_for(url: str) -> RelayProgram:
    """The program for a URL: `remux.py` for RTSP and RTMP, ffmpeg for SRT, which PyAV's wheels lack.

    Raises SinkError without ffmpeg.
    """
    if sys.platform == "win32":
        raise SinkError(f"{redact(url)}: publishing is for Linux and macOS. Let OBS publish virtualcam: or page: here.")
    if not url.lower().startswith("srt:"):
        script = str(Path(__file__).with_name("remux.py"))
        command = [sys.executable, "-P", script]  # -P: modules beside the script must not hide libraries
        return RelayProgram(command, {"WARPFUSE_PUBLISH": url})
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise SinkError(
            f"{redact(url)}: SRT needs the program ffmpeg, which is not on the PATH (PyAV is built without SRT). "
            "Install it: apt install ffmpeg. Or publish by rtsp:// or rtmp://."
        )
    quiet = ["-hide_banner", "-nostats", "-loglevel", "error", "-progress", "pipe:1", "-stats_period", "0.2"]
    source = ["-probesize", "32", "-analyzeduration", "0", "-f", "nut", "-i", "pipe:0", "-c", "copy"]
    soon = ["-flush_packets", "1", "-muxdelay", "0", "-muxpreload", "0", "-max_interleave_delta", "1"]
    out = [*soon, "-f", "mpegts", url]
    return RelayProgram([ffmpeg, *quiet, *source, *out], {})


class Relay:
    """One connection of a stream. `write` takes bytes of NUT. `close` always ends the process. One thread at a time.

    live  the peer has accepted the stream
    """

    def __init__(self, address: Address) -> None:
        program = program_for(address.url)
        self._stall_s = address.settings.stall
        self._process = subprocess.Popen(
            program.command,
            env={**os.environ, **program.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._into, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        _make_unwaiting(self._into, self._from)
        _make_small(self._into)
        self._heard = b""
        self.live = False

    def write(self, data: bytes) -> int:
        """Write all bytes. Raises Gone when the process has ended or the peer takes nothing for `stall` seconds."""
        view = memoryview(data)
        deadline = time.monotonic() + self._stall_s
        while view:
            try:
                view = view[os.write(self._into, view) :]
                deadline = time.monotonic() + self._stall_s
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Gone(f"the peer has taken nothing for {self._stall_s:g} s") from None
                select.select([], [self._into], [], left)
            except BrokenPipeError:
                self.listen(_GRACE_S)
                raise self._gone() from None
        return len(data)

    def listen(self, timeout: float = 0.0) -> None:
        """Read the process's output and set `live`. Raises Gone if the process has ended."""
        deadline = time.monotonic() + timeout
        while True:
            select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            try:
                piece = os.read(self._from, 4096)
            except BlockingIOError:
                return
            self._heard = (self._heard + piece)[-4096:]
            if not piece:
                raise self._gone()
            self.live = self.live or b"live\n" in self._heard or b"progress=" in self._heard
            if self.live and timeout:
                return

    def close(self, complete: bool = False) -> None:
        """End the process. complete: give it a short time to send the rest."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_GRACE_S if complete else 0.01)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _gone(self) -> Gone:
        lines = [line.strip() for line in self._heard.decode(errors="replace").splitlines() if line.strip()]
        lines = [line for line in lines if line != "live" and not _is_progress(line)]
        if not lines:
            return Gone("the peer closed the connection")
        try:
            report = json.loads(lines[-1])
            return Gone(redact(report["error"]), bool(report["final"]))
        except (ValueError, KeyError, TypeError):
            for line in lines:
                for words in _REFUSED:
                    if words in line:
                        return Gone(words, final=True)
            return Gone(redact(lines[-1]))


def _is_progress(line: str) -> bool:
    key, equals, _ = line.partition("=")
    return bool(equals) and key.isidentifier()


def _make_unwaiting(*pipes: int) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    for pipe in pipes:
        os.set_blocking(pipe, False)


def _make_small(pipe: int) -> None:
    """Limit a pipe's buffer to a fraction of a second of video, on systems that allow it."""
    try:
        import fcntl
    except ImportError:
        return
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined, unused-ignore]
