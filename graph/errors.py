"""Errors of the graph.

WarpfuseError
├── BadInput
│   └── ConfigError           a key or value of the configuration cannot be used: key, range, right spelling
├── WireError                 a message that does not fit the protocol; never obeyed
└── StageFailed               a stage raised: its name, and the error as __cause__
"""

from warpfuse.engine.errors import BadInput, WarpfuseError


class ConfigError(BadInput):
    """A key or value of the configuration cannot be used."""


class WireError(WarpfuseError):
    """Bytes that are no message of this protocol, or a message that does not fit what was agreed."""


class StageFailed(WarpfuseError):
    """A stage raised while the graph ran. `stage` is its name; the error itself is `__cause__`."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"stage {stage}: {type(cause).__name__}: {' '.join(str(cause).split())}")
        self.stage = stage
