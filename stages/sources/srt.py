"""SRT streams: through FFmpeg's libraries where they have SRT, else through an `ffmpeg` program that has it."""

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
# The child dies with the thread that started it, also where that is killed while nothing is in the pipe to break.
_TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)
_SAID = 4096  # bytes of the child's complaint that are looked at


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
    """An `ffmpeg` that receives and passes on, without decoding; this process reads its pipe."""

    def __init__(self, program: str, url: str, timeout_us: str) -> None:
        reading, writing = os.pipe()
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-rw_timeout"]
        command += [timeout_us, "-probesize", "500000", "-i", url, "-map", "0:v:0", "-map", "0:a?"]
        command += ["-c", "copy", "-f", "nut"]
        # Each packet at once: nut's muxer and the pipe would keep some back.
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
        """Pictures as they come; what the child complained of when it ends."""
        try:
            yield from self._stream.pictures()
        except (av.error.FFmpegError, OSError) as error:
            raise self._why(error) from None
        raise self._why(EOFError())

    def interrupt(self) -> None:
        """End the child: the pipe ends with it."""
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
        """What the child said last says more than that its pipe ended."""
        try:
            self._child.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            return broken(error)
        assert self._child.stderr is not None
        said = self._child.stderr.read(_SAID).decode(errors="replace").lower()
        if "passphrase" in said or "badsecret" in said or "unauthorized" in said or "rejected" in said:
            return Broken(Fault.DENIED, "the passphrase or stream id was refused")
        if "timed out" in said or "timeout" in said:
            return Broken(Fault.SILENT, "no answer in time")
        if "input/output error" in said or "refused" in said:
            return Broken(Fault.NETWORK, "no connection")
        return broken(error)


@cache
def libraries_have_srt() -> bool:
    """FFmpeg looks a protocol up before it asks the whitelist, which holds the connection off."""
    try:
        av.open("srt://127.0.0.1:9", options={"protocol_whitelist": "none"})
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, ValueError, OSError):
        pass
    return True


@cache
def speaks_srt(program: str) -> bool:
    """Whether an ffmpeg program has SRT."""
    told = subprocess.run([program, "-hide_banner", "-protocols"], capture_output=True, text=True, check=False)
    return "srt" in told.stdout.split()
