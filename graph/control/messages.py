"""Requests to a run under way: settings, pause, figures, a picture, its end. Typed messages with one reply to each.

The socket, or the file with its port, is in the run's folder, which only its user can enter.
"""

import contextlib
import hmac
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import zmq

from warpfuse.engine.files import write_whole
from warpfuse.graph.control.run_directory import find_run
from warpfuse.graph.errors import ConfigError, WireError

_LIMIT = 1 << 20


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A request or a reply."""


class Set(Message, frozen=True):
    """Change these keys of the settings. The other keys stay as they are."""

    keys: dict[str, Any]


class Pause(Message, frozen=True):
    """Pause the run: a file is not read, the frames of a live source are dropped."""


class Resume(Message, frozen=True):
    """End the pause."""


class GetSettings(Message, frozen=True):
    """Ask for all keys with their present values."""


class GetStats(Message, frozen=True):
    """Ask for the figures so far."""


class Snapshot(Message, frozen=True):
    """Ask for the picture that was shown last."""


class Stop(Message, frozen=True):
    """End the run after the frames that were read are finished."""


class AddStream(Message, frozen=True):
    """Add a stream with these keys to a run of several streams. name: "" names it after its source."""

    name: str
    keys: dict[str, Any]


class RemoveStream(Message, frozen=True):
    """Remove a stream from a run of several streams."""

    name: str


class GetCounts(Message, frozen=True):
    """The frames of every stream of a run of several: cheap enough to be asked each second."""


class StreamCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"into": "in"}):
    """Frames of one stream: in + repeated = out + dropped + under_way.

    size  (width, height) in pixels
    over  it has ended, or was removed; error: why it broke off, one line
    """

    into: int
    out: int
    repeated: int
    dropped: int
    under_way: int
    size: tuple[int, int]
    over: bool = False
    error: str | None = None


class Counts(Message, frozen=True):
    """The streams under way by their names, and the newest of those that are over."""

    streams: dict[str, StreamCounts]


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Leave of a cluster's controller to run one life of a stream for `for_s` seconds (`warpfuse.cluster.lease`).

    generation  number of that life
    beat        the newest beat of the host that the controller has heard; the lease runs from when it was sent
    """

    generation: int
    beat: int
    for_s: float


class GetBeat(Message, frozen=True):
    """Ask a host of a cluster what it runs, and renew leases of it."""

    grants: dict[str, Grant]


class StartLife(Message, frozen=True):
    """Have a host of a cluster start a life of a stream, which it takes while the grant holds, and each life once.

    keys    of the stream; secrets are references in them
    digest  of these keys
    unique  the stream ends with its lease
    """

    name: str
    keys: dict[str, Any]
    digest: str
    unique: bool
    grant: Grant


class EndLife(Message, frozen=True):
    """Have a host of a cluster end a life of a stream; of one that is over, forget it."""

    name: str
    generation: int


class StreamSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream as its host tells of it. digest: of the keys it was started with.

    counts.over without an error: its source has ended. What ends for another reason, an order or a lease too, says so.
    """

    generation: int
    digest: str
    counts: StreamCounts


class HostBeat(Message, frozen=True):
    """What a host of a cluster tells each second: the streams it has, and those that are over until they are forgotten.

    ready  it can take streams; not while it starts
    """

    beat: int
    streams: dict[str, StreamSeen]
    ready: bool = True


class StreamAdded(Message, frozen=True):
    """The stream was added under this name."""

    name: str


class Settings(Message, frozen=True):
    """All keys of the graph file, as plain types."""

    keys: dict[str, Any]


class Applied(Message, frozen=True):
    """The new settings have this version and apply from frame `seq` on."""

    version: int
    seq: int


class Done(Message, frozen=True):
    """The request was carried out."""


class RunFigures(Message, frozen=True):
    """The figures of a run.

    stats    as `--stats` writes them
    seconds  since the control server was started
    workers  the stages of each worker
    """

    stats: dict[str, Any]
    seconds: float
    workers: dict[str, list[str]]


class Image(Message, frozen=True):
    """A PNG file."""

    png: bytes


class Denied(Message, frozen=True):
    """The request was not carried out. why: the reason, one line."""

    why: Annotated[str, msgspec.Meta(max_length=8000)]


_CONTROL = "control"  # socket or file in the folder of a run
_HAS_UNIX = hasattr(socket, "AF_UNIX")

Request = (
    Set
    | GetSettings
    | Pause
    | Resume
    | GetStats
    | GetCounts
    | Snapshot
    | Stop
    | AddStream
    | RemoveStream
    | GetBeat
    | StartLife
    | EndLife
)
Reply = Applied | Settings | Done | RunFigures | Counts | Image | StreamAdded | HostBeat | Denied

Answer = TypeVar("Answer")

_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def shown(png: bytes) -> Image | Denied:
    """The reply to `Snapshot`. png: the file, empty before the first picture."""
    return Image(png) if png else Denied("no picture has been shown yet")


class ControlSocket:
    """The run's socket for requests. One thread polls `socket` and replies to every request, at once or later.

    The socket is the Unix socket `control` in the run's folder. On systems without Unix sockets it is on loopback TCP,
    and the file `control` holds its port and a token. A client must send the token, which it can read from that file
    only.

    requests  decodes what is asked
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        folder: Path,
        requests: "msgspec.msgpack.Decoder[Any] | None" = None,
    ) -> None:
        self._requests = requests or _REQUESTS
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 500)
        self.socket.setsockopt(zmq.MAXMSGSIZE, _LIMIT)
        self._token = b""
        if _HAS_UNIX:
            self.socket.bind(f"ipc://{folder}/{_CONTROL}")
            return
        self._token = secrets.token_hex(24).encode()
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        write_whole(folder / _CONTROL, b"%d %s" % (port, self._token), mode=0o600)

    def requests(self) -> Iterator[tuple[list[bytes], Any]]:
        """Yield the requests that have arrived, each with the address for `reply`.

        Messages with a wrong token or that are no request get `Denied` here.
        """
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            sender, empty, *rest = self.socket.recv_multipart()
            to = [sender, empty]
            token, data = rest if len(rest) == 2 else (b"", b"".join(rest))
            if not hmac.compare_digest(token, self._token):
                self.reply(to, Denied("this is not the token of the run"))
                continue
            try:
                yield to, self._requests.decode(data)
            except msgspec.MsgspecError as error:
                self.reply(to, Denied(f"no request: {error}"))

    def reply(self, to: list[bytes], reply: Message) -> None:
        """Send a reply. A client that has disconnected is ignored."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([*to, _ENCODER.encode(reply)], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def ask(name: str, request: Request, *, timeout_s: float = 10.0) -> Reply:
    """Send a request to the run of this name and wait for its reply.

    Raises ConfigError without such a run, without a reply in time, or when the request is denied, and WireError for a
    reply of another version.
    """
    return ask_at(find_run(name), request, name=name, timeout_s=timeout_s)


def ask_at(folder: Path, request: Request, *, name: str, timeout_s: float = 10.0) -> Reply:
    """As `ask`, for the run in this folder."""
    return ask_for(folder, request, _REPLIES, name=name, timeout_s=timeout_s)


def ask_for(
    folder: Path, request: Message, replies: "msgspec.msgpack.Decoder[Answer]", *, name: str, timeout_s: float = 10.0
) -> "Answer":
    """As `ask_at`, for a process with requests of its own. replies: decodes what it answers, `Denied` among it."""
    try:
        endpoint, token = _way_to(folder)
    except (OSError, ValueError):
        raise ConfigError(f"{name} cannot be asked: it is starting, or was started with --no-control") from None
    with zmq.Context() as context, context.socket(zmq.REQ) as requester:
        requester.setsockopt(zmq.LINGER, 0)
        requester.connect(endpoint)
        requester.send_multipart([token, _ENCODER.encode(request)])
        if not requester.poll(int(timeout_s * 1000)):
            raise ConfigError(f"{name} does not answer within {timeout_s:g} s; is it starting, or stopped (Ctrl-Z)?")
        try:
            reply = replies.decode(requester.recv())
        except msgspec.MsgspecError as error:
            raise WireError(f"{name} answers what this version does not know: {error}") from None
    if isinstance(reply, Denied):
        raise ConfigError(reply.why)
    return reply


def _way_to(folder: Path) -> tuple[str, bytes]:
    """Endpoint and token of the control socket in a run's folder. Raises OSError or ValueError without a valid file."""
    if _HAS_UNIX:
        return f"ipc://{folder}/{_CONTROL}", b""
    port, token = (folder / _CONTROL).read_bytes().split()
    return f"tcp://127.0.0.1:{int(port)}", token
