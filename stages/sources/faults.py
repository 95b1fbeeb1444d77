"""Faults of live sources, in classes that decide how often to try again."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import av.error

from warpfuse.engine.redact import redact
from warpfuse.stages.sources.container import met


class Fault(Enum):
    """The class of a fault. `TRIES` has the number of tries for each."""

    DENIED = "denied"  # a wrong password stays wrong, and some cameras lock the account
    UNABLE = "unable"  # this machine lacks a protocol, a program or a permission
    UNKNOWN = "unknown"  # no such stream; a restarted server may answer so before its camera is back
    PAGE = "page"  # a web page, at an address that never had anything else
    FOREIGN = "foreign"  # the answer is no video, or no video that can be decoded
    NETWORK = "network"
    SILENT = "silent"  # connected, but no data come
    ENDED = "ended"  # the other side closed the connection, though a live source has no end


TRIES = {Fault.DENIED: 1, Fault.UNABLE: 1, Fault.PAGE: 1, Fault.UNKNOWN: 4, Fault.FOREIGN: 4}
"""Number of faults in a row after which the source is lost; any number for classes that are not listed."""

_REMEDIES = {
    Fault.DENIED: "Check the user name and password in the address.",
    Fault.UNKNOWN: "Check the path in the address.",
    Fault.FOREIGN: "Check with a player what the address gives.",
    Fault.NETWORK: "Check host and port, and that it is switched on.",
    Fault.SILENT: "Check host and port, and that it is switched on.",
    Fault.ENDED: "Check that it is still sending.",
}


class Broken(Exception):
    """A connection could not be made, or broke. Its text is the reason, without secrets.

    fault   its class
    remedy  what the user can do
    """

    def __init__(self, fault: Fault, reason: str, remedy: str | None = None) -> None:
        super().__init__(redact(reason))
        self.fault = fault
        self.remedy = _REMEDIES.get(fault, "") if remedy is None else remedy


EXPECTED = (Broken, av.error.FFmpegError, OSError, EOFError)
"""Errors that a connection raises when it cannot be made or breaks."""


@contextmanager
def foreign() -> Iterator[None]:
    """Within the block, any other error that the content of a stream causes in PyAV becomes `Broken`."""
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
    """The `Broken` for an error of FFmpeg or the system."""
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
    # strerror instead of str, since PyAV's texts contain the whole address
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Broken(Fault.NETWORK, str(reason).lower())
