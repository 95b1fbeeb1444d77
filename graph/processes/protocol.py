"""The protocol between the supervisor and a worker process. Messages are validated when decoded, and never pickled.

A worker sends WorkerHello. It gets its part of the graph with Assign, opens its stages and sends Ready. Then the
supervisor sends Connect and LetGo for each epoch. Beat shows that the worker's stages make progress; whether the
process is alive at all is checked by ZeroMQ (`graph/processes/channel.py`).
"""

from typing import Annotated, Any

import msgspec

from warpfuse.engine.precision import Precision
from warpfuse.graph.errors import WireError
from warpfuse.graph.metrics.report import Report
from warpfuse.graph.processes.remote_errors import Kind
from warpfuse.graph.processes.video_message import Info

VERSION = 10
_MOST = 64 << 20  # bytes of a message: for a trace or a snapshot; the others are far smaller

Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class Assign(_Message, frozen=True):
    """The worker's part of the graph, with every choice that the supervisor has made.

    worker   name of the worker in the plan
    config   keys of the configuration, with the newest settings
    version  version of these settings
    info     the source's info
    size     (width, height) of the pictures in the networks
    folder   folder of the links' ipc sockets
    run      name of the run in shared memory
    trace    record the calls of every stage
    temporal build the branch that carries the last picture, as for plan_graph
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
    """Connect to the source, before a part is assigned. The answer is `Found` or `Refused`. near: as in find_source."""

    url: Text
    near: tuple[int, int] | None = None


class Connect(_Message, frozen=True):
    """Open the links for this epoch and start the stages. The other fields are those of source_runner.ResumePoint."""

    epoch: int
    first: int
    without: list[int]
    since_ns: int
    done: int


class OpenBypass(_Message, frozen=True):
    """Open this worker's ends of a bypass, or open them again. number: counts openings, over all processes."""

    link: Text
    number: int


class LetGo(_Message, frozen=True):
    """End the epoch. The answer is `Quiet`, with the stages that are still in a call at the deadline."""

    deadline_s: float


class AddSettings(_Message, frozen=True):
    """Add a version of the settings. asked_ns: the supervisor's clock when somebody asked for it; 0: unknown."""

    version: int
    config: dict[str, Any]
    over_ns: int = 0
    named: tuple[str, ...] = ()
    on_beat: bool = False
    asked_ns: int = 0


class BeginSettings(_Message, frozen=True):
    """Stamp new frames with this version of the settings. For the worker of the source."""

    version: int


class PauseSource(_Message, frozen=True):
    """Pause the source, or end the pause."""

    paused: bool


class StopSource(_Message, frozen=True):
    """End the stream. Frames that were read are finished."""


class Snap(_Message, frozen=True):
    """Ask for the picture that was shown last."""


class Ping(_Message, frozen=True):
    """Ask for the worker's clock. t0: the supervisor's clock, ns."""

    t0: int


class SetClock(_Message, frozen=True):
    """Add this to the worker's clock, so that it agrees with the supervisor's."""

    offset_ns: int


class Exit(_Message, frozen=True):
    """Close everything and exit. Sinks discard incomplete output."""


class WorkerHello(_Message, frozen=True):
    """A worker process has connected."""

    version: int
    worker: str
    pid: int


class Found(_Message, frozen=True):
    """The source is connected. info: what is known about it."""

    info: Info


class Ready(_Message, frozen=True):
    """Every stage is open."""


class Said(_Message, frozen=True):
    """A message for the user."""

    line: Text


class Refused(_Message, frozen=True):
    """The stages cannot be opened, or the source cannot be connected."""

    kind: Kind
    stage: str
    text: Text


class Beat(_Message, frozen=True):
    """The figures so far."""

    report: Report


class Quiet(_Message, frozen=True):
    """The epoch has ended in this worker. stuck: stages still in a call, which only the end of the process ends."""

    report: Report
    stuck: list[str]


class Faulted(_Message, frozen=True):
    """A stage raised. seq, passed: as in StageFault; trace: the traceback."""

    epoch: int
    stage: str
    seq: int
    passed: int
    kind: Kind
    text: Text
    trace: Text


class SettingsBegun(_Message, frozen=True):
    """Frames from number `seq` on carry this version of the settings."""

    version: int
    seq: int


class ShownPicture(_Message, frozen=True):
    """The picture shown last, as a PNG file; empty before the first."""

    png: bytes


class Pong(_Message, frozen=True):
    """Answer to Ping, with its t0. t1, t2: the worker's clock when Ping was received and when this is sent, ns."""

    t0: int
    t1: int
    t2: int


class Goodbye(_Message, frozen=True):
    """The worker exits. spans: the calls of its stages, if a trace was asked for."""

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
    """Encode a message."""
    return _ENCODER.encode(message)


def command(data: bytes) -> Command:
    """Decode a message of the supervisor. Raises WireError."""
    decoded: Command = _decoded(_COMMANDS, data)
    return decoded


def event(data: bytes) -> Event:
    """Decode a message of a worker. Raises WireError."""
    decoded: Event = _decoded(_EVENTS, data)
    return decoded


def _decoded(decoder: "msgspec.msgpack.Decoder[Any]", data: bytes) -> Any:
    if len(data) > _MOST:
        raise WireError(f"a message has at most {_MOST} bytes, got {len(data)}")
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise WireError(f"no message between supervisor and worker: {error}") from None
