"""Errors sent from one process to another, as a kind and one line of text."""

from typing import Literal, get_args

from warpfuse.engine.errors import BadInput, WarpfuseError, one_line, typed_line
from warpfuse.graph.errors import ConfigError, Elsewhere, LinkCut, SharedMemoryFull, StageFailed
from warpfuse.stages.errors import StreamLost

Kind = Literal["input", "lost", "full", "cut", "failed"]
"""input: bad input; lost: a source or sink was lost; full: no shared memory; cut: a link was cut; failed: a stage
raised. The first three end the run. `cut` costs an epoch, and `failed` an epoch and a frame."""

ENDS_THE_RUN: tuple[Kind, ...] = get_args(Kind)[:3]


def kind_of(error: BaseException) -> Kind:
    """The kind of an error."""
    match error:
        case BadInput():
            return "input"
        case StreamLost():
            return "lost"
        case SharedMemoryFull():
            return "full"
        case LinkCut():
            return "cut"
    return "failed"


def text_of(error: BaseException) -> str:
    """An error as one line. It begins with the type unless the error is a WarpfuseError."""
    return one_line(error, 4000) if isinstance(error, WarpfuseError) else typed_line(error, 4000)


def error_of(kind: Kind, stage: str, text: str) -> WarpfuseError:
    """The error of this kind and text, to be raised in the supervisor."""
    match kind:
        case "input":
            return ConfigError(text)
        case "lost":
            return StreamLost(text)
        case "full":
            return SharedMemoryFull(text)
    return StageFailed(stage, Elsewhere(text))
