"""Errors of the graph.

WarpfuseError
├── BadInput
│   ├── ConfigError           a key or value of the configuration cannot be used: key, range, right spelling
│   └── KeysMissing           a link between hosts has no usable CURVE keys
├── WireError                 a message that does not fit the protocol; counted, never obeyed
│   └── LinkCut               frames or the connection of a link were lost: only a new epoch mends it
├── SharedMemoryFull          bytes needed, bytes free
├── TransportMissing          a transport cannot be had on this machine, and why
└── StageFailed               a stage raised: its name, and the error as __cause__
"""

from typing import Any

from warpfuse.engine.errors import BadInput, WarpfuseError, one_line, typed_line


class ConfigError(BadInput):
    """A key or value of the configuration cannot be used."""


class KeysMissing(BadInput):
    """A link between hosts has no usable CURVE keys."""


class WireError(WarpfuseError):
    """Bytes that are no message of this protocol, or a message that does not fit what was agreed."""


class LinkCut(WireError):
    """A link lost frames, or its connection broke: what was in flight is gone."""


class SharedMemoryFull(WarpfuseError):
    """Memory for the slots of a link cannot be had."""


class TransportMissing(WarpfuseError):
    """A transport cannot be had here; the next one can."""


class Elsewhere(Exception):
    """An error of another process, as one line that says its type."""


class StageFailed(WarpfuseError):
    """A stage raised while the graph ran. `stage` is its name; the error itself is `__cause__`.

    stats  the figures of the run, if other streams of it came to their end
    """

    stats: Any = None

    def __init__(self, stage: str, cause: BaseException) -> None:
        line = one_line(cause) if isinstance(cause, Elsewhere) else typed_line(cause)
        super().__init__(f"stage {stage}: {line}")
        self.stage = stage
