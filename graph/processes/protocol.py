"""What a supervisor and a worker process say to one another, as bytes. Decoded with validation, never pickle.

A worker says HELLO, is told its part, opens its stages and is READY. Then, for each epoch, CONNECT and LET GO. Beats
say that its stages get on; that the process lives at all is asked by ZeroMQ itself (`graph/processes/channel.py`).
"""

from typing import Annotated, Any

import msgspec

from warpfuse.engine.precision import Precision
from warpfuse.graph.errors import WireError
from warpfuse.graph.metrics.report import Report
from warpfuse.graph.processes.remote_errors import Kind
from warpfuse.graph.processes.video_message import Info

VERSION = 8
_MOST = 64 << 20  # a trace or a snapshot; all else is far smaller

Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class Assign(_Message, frozen=True):
    """The worker's part: which worker of which graph it is. Everything that was chosen is in it.

    config   keys of the configuration, whose newest settings have number `version`
    folder   of the ipc sockets of links; run: name of the run in shared memory
    trace    keep the calls of every stage
    temporal build the branches of the past, as in plan_graph
    """

    worker: str
    config: dict[str, Any]
    version: int
    info: Info
    size: tuple[int, int]
    backend: str
    precision: Precision
    folder: str
    run: str
    trace: bool
    temporal: bool | None = None


class Seek(_Message, frozen=True):
    """Connect to the source, before there is a part: `Found` or `Refused` is the answer. near: as in find_source."""

    url: Text
    near: tuple[int, int] | None = None


class Connect(_Message, frozen=True):
    """Open the ends of links of this epoch and go; the rest as source_runner.Resume."""

    epoch: int
    first: int
    without: list[int]
    since_ns: int
    done: int


class OpenBypass(_Message, frozen=True):
    """Open the ends of a bypass anew; number: how many times it has been, over all processes."""

    link: Text
    number: int


class LetGo(_Message, frozen=True):
    """End the epoch; a call that lasts until the deadline is told."""

    deadline_s: float


class AddSettings(_Message, frozen=True):
    """Make a version of the settings known. over_ns, named: as of `crossfade.Timed`."""

    version: int
    config: dict[str, Any]
    over_ns: int = 0
    named: tuple[str, ...] = ()


class BeginSettings(_Message, frozen=True):
    """To the worker of the source: new frames carry this version."""

    version: int


class PauseSource(_Message, frozen=True):
    """Hold the source, or let it go on."""

    paused: bool


class StopSource(_Message, frozen=True):
    """End the stream: what was read is finished."""


class Snap(_Message, frozen=True):
    """Give the picture that was shown last."""


class Ping(_Message, frozen=True):
    """What does your clock say? t0: mine."""

    t0: int


class SetClock(_Message, frozen=True):
    """Add this to your clock: then it is mine."""

    offset_ns: int


class Exit(_Message, frozen=True):
    """Close everything; a sink that is not complete discards."""


class WorkerHello(_Message, frozen=True):
    """A worker process is there."""

    version: int
    worker: str
    pid: int


class Found(_Message, frozen=True):
    """The source is connected, and this is known of it."""

    info: Info


class Ready(_Message, frozen=True):
    """Every stage is open."""


class Said(_Message, frozen=True):
    """A line for the user."""

    line: Text


class Refused(_Message, frozen=True):
    """The stages cannot be opened."""

    kind: Kind
    stage: str
    text: Text


class Beat(_Message, frozen=True):
    """The figures so far."""

    report: Report


class Quiet(_Message, frozen=True):
    """The epoch has ended here. stuck: stages that are still inside a call; only the process's end frees them."""

    report: Report
    stuck: list[str]


class Faulted(_Message, frozen=True):
    """A stage raised."""

    epoch: int
    stage: str
    seq: int
    passed: int
    kind: Kind
    text: Text
    trace: Text


class SettingsBegun(_Message, frozen=True):
    """The version holds from frame `seq` on."""

    version: int
    seq: int


class ShownPicture(_Message, frozen=True):
    """The picture shown last, as PNG; empty before the first."""

    png: bytes


class Pong(_Message, frozen=True):
    """t0 as it came; t1, t2: my clock when it came and when this left."""

    t0: int
    t1: int
    t2: int


class Goodbye(_Message, frozen=True):
    """Last words. spans: calls of the stages, if a trace was asked for."""

    report: Report
    spans: list[tuple[str, int, int, int]]


Command = (
    Assign
    | Seek
    | Connect
    | OpenBypass
    | LetGo
    | AddSettings
    | BeginSettings
    | PauseSource
    | StopSource
    | Snap
    | Ping
    | SetClock
    | Exit
)
Event = (
    WorkerHello
    | Found
    | Ready
    | Said
    | Refused
    | Beat
    | Quiet
    | Faulted
    | SettingsBegun
    | ShownPicture
    | Pong
    | Goodbye
)

_ENCODER = msgspec.msgpack.Encoder()
_COMMANDS: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_EVENTS: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(message: Command | Event) -> bytes:
    """A message as bytes."""
    return _ENCODER.encode(message)


def command(data: bytes) -> Command:
    """What the supervisor sent. Raises WireError."""
    decoded: Command = _decoded(_COMMANDS, data)
    return decoded


def event(data: bytes) -> Event:
    """What a worker sent. Raises WireError."""
    decoded: Event = _decoded(_EVENTS, data)
    return decoded


def _decoded(decoder: "msgspec.msgpack.Decoder[Any]", data: bytes) -> Any:
    if len(data) > _MOST:
        raise WireError(f"a message has at most {_MOST} bytes, got {len(data)}")
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise WireError(f"no message between supervisor and worker: {error}") from None
