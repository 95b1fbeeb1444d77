"""An error of one process, told to another: what it means for the run, and one line."""

from typing import Literal, get_args

from warpfuse.engine.errors import BadInput, WarpfuseError, one_line, typed_line
from warpfuse.graph.errors import ConfigError, Elsewhere, LinkCut, SharedMemoryFull, StageFailed
from warpfuse.stages.errors import StreamLost

Kind = Literal["input", "lost", "full", "cut", "failed"]
"""input: bad; lost: a source or sink; full: no shared memory; cut: a link; failed: a stage. Two cost no more than an
epoch: `cut`, in which a file loses nothing, and `failed`, which costs a frame."""

ENDS_THE_RUN: tuple[Kind, ...] = get_args(Kind)[:3]


def kind_of(error: BaseException) -> Kind:
    """What an error means for the run, whatever process it was raised in."""
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
    """One line: of a WarpfuseError its own, else the type too."""
    return one_line(error, 4000) if isinstance(error, WarpfuseError) else typed_line(error, 4000)


def error_of(kind: Kind, stage: str, text: str) -> WarpfuseError:
    """The error a worker told of, as it would have been raised here."""
    match kind:
        case "input":
            return ConfigError(text)
        case "lost":
            return StreamLost(text)
        case "full":
            return SharedMemoryFull(text)
    return StageFailed(stage, Elsewhere(text))
