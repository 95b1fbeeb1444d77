"""The process that talks to the peer: started, fed through a pipe with a deadline, heard, killed."""

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

_PIPE_BYTES = 1 << 16  # a fraction of a second of video: what lies in it is late
_GRACE_S = 2.0
_REFUSED = ("Incorrect passphrase", "Password required")  # as libsrt puts it


class Gone(Exception):
    """The connection is lost, and why; `final` if another attempt would be refused as well."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@dataclass(frozen=True, slots=True)
class RelayProgram:
    """What publishes a scheme: a command, and its environment beyond ours."""

    command: list[str]
    environment: dict[str, str]


def program_for(url: str) -> RelayProgram:
    """PyAV publishes RTSP and RTMP; its wheels lack SRT, which takes the program ffmpeg. Raises SinkError without,
    and on Windows, whose pipes know no deadline."""
    if sys.platform == "win32":
        raise SinkError(f"{redact(url)}: publishing is for Linux and macOS. Let OBS publish virtualcam: or page: here.")
    if not url.lower().startswith("srt:"):
        script = str(Path(__file__).with_name("remux.py"))
        command = [sys.executable, "-P", script]  # -P: our neighbours are no libraries
        return RelayProgram(command, {"WARPFUSE_PUBLISH": url})
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise SinkError(
            f"{redact(url)}: SRT needs the program ffmpeg, which is not on the PATH (PyAV is built without SRT). "
            "Install it: apt install ffmpeg. Or publish by rtsp:// or rtmp://."
        )
    quiet = ["-hide_banner", "-nostats", "-loglevel", "error", "-progress", "pipe:1", "-stats_period", "0.2"]
    source = ["-probesize", "32", "-analyzeduration", "0", "-f", "nut", "-i", "pipe:0", "-c", "copy"]
    out = ["-flush_packets", "1", "-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts", url]
    return RelayProgram([ffmpeg, *quiet, *source, *out], {})


class Relay:
    """One attempt to publish. `write` takes bytes of NUT. One thread at a time; `close` ends the process always."""

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
        """Hand all bytes on. Raises Gone: the process ended, or the peer took nothing for `stall` seconds."""
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
        """Take in what the process says; sets `live`. Raises Gone if it has ended."""
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
        """End the process: by the end of its input and a short grace with `complete`, else at once."""
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
            said = json.loads(lines[-1])
            return Gone(redact(said["error"]), bool(said["final"]))
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
    """Have a pipe hold no more than a fraction of a second, where the system lets one choose."""
    try:
        import fcntl
    except ImportError:
        return
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined, unused-ignore]
