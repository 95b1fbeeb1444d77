"""Why a live source has no picture, in the classes that decide whether it is worth trying again."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import av.error

from warpfuse.engine.redact import redact
from warpfuse.stages.sources.container import met


class Fault(Enum):
    """What went wrong. The value is for people who read code; `TRIES` says what follows from it."""

    DENIED = "denied"  # a wrong password does not become right, and some cameras lock the account
    UNABLE = "unable"  # this machine lacks something: a protocol, a program, a permission
    UNKNOWN = "unknown"  # no such stream; a server that has just restarted may say so before its camera is back
    PAGE = "page"  # a web page, and it never was anything else
    FOREIGN = "foreign"  # what answers is no video, or none that can be decoded
    NETWORK = "network"
    SILENT = "silent"  # connected, but nothing comes
    ENDED = "ended"  # the other side closed: a live source has no end of its own


TRIES = {Fault.DENIED: 1, Fault.UNABLE: 1, Fault.PAGE: 1, Fault.UNKNOWN: 4, Fault.FOREIGN: 4}
"""How often in a row a fault may happen before the source is lost; those that are not here: any number of times."""

_REMEDIES = {
    Fault.DENIED: "Check the user name and password in the address.",
    Fault.UNKNOWN: "Check the path in the address.",
    Fault.FOREIGN: "Check with a player what the address gives.",
    Fault.NETWORK: "Check host and port, and that it is switched on.",
    Fault.SILENT: "Check host and port, and that it is switched on.",
    Fault.ENDED: "Check that it is still sending.",
}


class Broken(Exception):
    """A connection could not be made or broke. `fault` is its class, the text a reason without secrets, `remedy` what
    the user can do."""

    def __init__(self, fault: Fault, reason: str, remedy: str | None = None) -> None:
        super().__init__(redact(reason))
        self.fault = fault
        self.remedy = _REMEDIES.get(fault, "") if remedy is None else remedy


EXPECTED = (Broken, av.error.FFmpegError, OSError, EOFError)
"""What a connection raises when it cannot be made or breaks."""


@contextmanager
def foreign() -> Iterator[None]:
    """The net around a connection: what FFmpeg's bindings raise of what lies in a stream (container.py) is `Broken`."""
    try:
        yield
    except EXPECTED:
        raise
    except Exception as error:
        raise Broken(Fault.FOREIGN, f"what it sends cannot be read: {met(error)}") from error


_DENIED = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
_UNKNOWN = (av.error.HTTPNotFoundError, av.error.FileNotFoundError)
_FOREIGN = (av.error.InvalidDataError, av.error.DecoderNotFoundError, av.error.DemuxerNotFoundError)
_SILENT = (av.error.TimeoutError, av.error.ExitError, TimeoutError)


def broken(error: Exception) -> Broken:
    """The `Broken` for what FFmpeg or the system raised."""
    if isinstance(error, Broken):
        return error
    if isinstance(error, _DENIED):
        return Broken(Fault.DENIED, "the user name or password was refused")
    if isinstance(error, _UNKNOWN):
        return Broken(Fault.UNKNOWN, "there is no such stream")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return Broken(Fault.UNABLE, "these FFmpeg libraries do not have this protocol")
    if isinstance(error, _FOREIGN):
        return Broken(Fault.FOREIGN, "what it sends is no video that can be decoded")
    if isinstance(error, _SILENT):
        return Broken(Fault.SILENT, "no answer in time")
    if isinstance(error, (av.error.EOFError, EOFError)):
        return Broken(Fault.ENDED, "the other side ended the stream")
    if isinstance(error, (av.error.PermissionError, PermissionError)):
        return Broken(Fault.UNABLE, "no permission to open it")
    # strerror, not str: PyAV's texts hold the whole address
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Broken(Fault.NETWORK, str(reason).lower())
