"""Errors of the graph.

WarpfuseError
├── BadInput
│   ├── ConfigError           a key or value of the configuration cannot be used: key, range, right spelling
│   └── KeysMissing           a link between hosts has no usable CURVE keys
├── WireError                 a message does not fit the protocol; links count and ignore it
│   └── LinkCut               a link lost frames or its connection: a new epoch is needed
├── SharedMemoryFull          no memory for the slots of a link: bytes needed, bytes free
├── TransportMissing          this machine lacks what a transport needs
└── StageFailed               a stage raised: its name, and the error as __cause__
"""

from typing import Any

from warpfuse.engine.errors import BadInput, WarpfuseError, one_line, typed_line


class ConfigError(BadInput):
    """A key or value of the configuration cannot be used."""


class KeysMissing(BadInput):
    """A link between hosts has no usable CURVE keys."""


class WireError(WarpfuseError):
    """Bytes that are no message of this protocol, or a message that contradicts the plan or the slot table."""


class LinkCut(WireError):
    """A link lost frames, or its connection broke and the frames in flight are lost."""


class SharedMemoryFull(WarpfuseError):
    """There is not enough shared memory for the slots of a link."""


class TransportMissing(WarpfuseError):
    """This machine lacks what a transport needs. Another transport can be used instead."""


class Elsewhere(Exception):
    """An error raised in another process, as one line with its type."""


class StageFailed(WarpfuseError):
    """A stage raised while the graph ran. `stage` is its name; the error itself is `__cause__`.

    stats  the figures of a run of several streams whose other streams finished; else None
    """

    stats: Any = None

    def __init__(self, stage: str, cause: BaseException) -> None:
        line = one_line(cause) if isinstance(cause, Elsewhere) else typed_line(cause)
        super().__init__(f"stage {stage}: {line}")
        self.stage = stage
