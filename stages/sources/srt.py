"""SRT streams as a source, received by FFmpeg's libraries if they have SRT, else by a program `ffmpeg` that has it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import av.error

from warpfuse.engine.redact import redact
from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.faults import Broken, Fault, broken
from warpfuse.stages.sources.live import live_source
from warpfuse.stages.sources.session import Connect, ReceivedPicture
from warpfuse.stages.sources.stream import StreamSession, checked

SCHEMES: tuple[str, ...] = ("srt",)
CONNECTS = True
HAS_SOUND = True
_LEAVING_S = 2.0
# The kernel kills the child with the thread that started it. An idle pipe would not tell the child.
_TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)
_SAID = 4096  # bytes of the child's error output that are read


def _connecting(url: str, patience: Patience, near: tuple[int, int]) -> Connect:
    address = checked(url)
    timeout_us = str(round(patience.silence * 1e6))
    if libraries_have_srt():
        return lambda: StreamSession(address, {"timeout": timeout_us, "rw_timeout": timeout_us}, near=near)
    program = shutil.which("ffmpeg")
    if program is None or not speaks_srt(program):
        lack = "there is no ffmpeg program" if program is None else f"{program} has no SRT"
        raise SourceError(f"{redact(url)}: PyAV's FFmpeg has no SRT, and {lack}. Try: sudo apt-get install ffmpeg")
    return lambda: ChildSession(program, address, timeout_us)


probe, open = live_source(_connecting)


class ChildSession:
    """The session of a child process `ffmpeg`, which receives the stream and writes it to a pipe without decoding."""

    def __init__(self, program: str, url: str, timeout_us: str) -> None:
        reading, writing = os.pipe()
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-rw_timeout"]
        command += [timeout_us, "-probesize", "500000", "-i", url, "-map", "0:v:0", "-map", "0:a?"]
        command += ["-c", "copy", "-f", "nut"]
        # Write each packet at once, since the NUT muxer would buffer some.
        command += ["-flush_packets", "1", f"pipe:{writing}"]
        if sys.platform.startswith("linux"):
            command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[writing]
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._pipe = reading
        try:
            self._stream = StreamSession(f"pipe:{reading}", {"protocol_whitelist": "pipe"}, format="nut")
        except (Broken, av.error.FFmpegError, OSError, EOFError) as error:
            why = self._why(error)
            self._end()
            raise why from None
        self.nature = self._stream.nature

    def pictures(self) -> Iterator[ReceivedPicture | str | None]:
        """Yield pictures as they come. Raises Broken with the child's reason when it ends."""
        try:
            yield from self._stream.pictures()
        except (av.error.FFmpegError, OSError) as error:
            raise self._why(error) from None
        raise self._why(EOFError())

    def interrupt(self) -> None:
        """Kill the child, which ends the pipe."""
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()

    def close(self) -> None:
        """End the child and close the pipe."""
        self._stream.close()
        self._end()

    def _end(self) -> None:
        self.interrupt()
        self._child.wait(_LEAVING_S)
        if self._child.stderr is not None:
            self._child.stderr.close()
        os.close(self._pipe)

    def _why(self, error: Exception) -> Broken:
        """The reason from the child's error output, which tells more than the end of its pipe."""
        try:
            self._child.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            return broken(error)
        assert self._child.stderr is not None
        output = self._child.stderr.read(_SAID).decode(errors="replace").lower()
        if "passphrase" in output or "badsecret" in output or "unauthorized" in output or "rejected" in output:
            return Broken(Fault.DENIED, "the passphrase or stream id was refused")
        if "timed out" in output or "timeout" in output:
            return Broken(Fault.SILENT, "no answer in time")
        if "input/output error" in output or "refused" in output:
            return Broken(Fault.NETWORK, "no connection")
        return broken(error)


@cache
def libraries_have_srt() -> bool:
    """True if PyAV's FFmpeg has SRT. FFmpeg looks a protocol up first; then the whitelist prevents a connection."""
    try:
        av.open("srt://127.0.0.1:9", options={"protocol_whitelist": "none"})
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, ValueError, OSError):
        pass
    return True


@cache
def speaks_srt(program: str) -> bool:
    """True if a program ffmpeg has SRT."""
    listed = subprocess.run([program, "-hide_banner", "-protocols"], capture_output=True, text=True, check=False)
    return "srt" in listed.stdout.split()
