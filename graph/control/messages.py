"""Asking a run that is under way: settings, pause, figures, a picture, its end. Typed messages; one answer to each.

The socket, or what tells of it, lies in the run's folder, which only its user can enter.
"""

import contextlib
import hmac
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import zmq

from warpfuse.engine.files import write_whole
from warpfuse.graph.control.run_directory import find_run
from warpfuse.graph.errors import ConfigError, WireError

_LIMIT = 1 << 20


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class Set(_Message, frozen=True):
    """Change these keys, and no others, from the next frame on; over `over_s` seconds, if that is among them."""

    keys: dict[str, Any]


class Pause(_Message, frozen=True):
    """A file waits; the frames of a live source are dropped."""


class Resume(_Message, frozen=True):
    """Go on."""


class GetStats(_Message, frozen=True):
    """The figures so far."""


class Snapshot(_Message, frozen=True):
    """The picture that was shown last."""


class Stop(_Message, frozen=True):
    """Finish what was read, then end."""


class AddStream(_Message, frozen=True):
    """Have a stream of these keys join a run of several; name "": after its source."""

    name: str
    keys: dict[str, Any]


class RemoveStream(_Message, frozen=True):
    """Have a stream leave a run of several."""

    name: str


class GetCounts(_Message, frozen=True):
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


class Counts(_Message, frozen=True):
    """The streams under way by their names, and the newest of those that are over."""

    streams: dict[str, StreamCounts]


class StreamAdded(_Message, frozen=True):
    """The stream has joined under this name."""

    name: str


class Applied(_Message, frozen=True):
    """The settings have this version, and hold from frame `seq` on."""

    version: int
    seq: int


class Done(_Message, frozen=True):
    """It was done."""


class RunFigures(_Message, frozen=True):
    """What `--stats` writes, and since when the run is under way and who runs what."""

    stats: dict[str, Any]
    seconds: float
    workers: dict[str, list[str]]


class Image(_Message, frozen=True):
    """A PNG file."""

    png: bytes


class Denied(_Message, frozen=True):
    """It was not done, and why: one line."""

    why: Annotated[str, msgspec.Meta(max_length=8000)]


_CONTROL = "control"  # in the folder of a run
_HAS_UNIX = hasattr(socket, "AF_UNIX")

Request = Set | Pause | Resume | GetStats | GetCounts | Snapshot | Stop | AddStream | RemoveStream
Reply = Applied | Done | RunFigures | Counts | Image | StreamAdded | Denied

_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def shown(png: bytes) -> Image | Denied:
    """The answer to `Snapshot`. png: empty before the first picture."""
    return Image(png) if png else Denied("no picture has been shown yet")


class ControlSocket:
    """The run's end. One thread polls `socket` and answers every request it takes, now or later.

    It is a socket in the run's folder, `control`; where the system has no such sockets one of loopback TCP, whose port
    and token stand in a file of that name: who can read it may ask.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path) -> None:
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

    def requests(self) -> Iterator[tuple[list[bytes], Request]]:
        """What has arrived, with what the answer has to be sent to. What is no request is answered here."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            sender, empty, *told = self.socket.recv_multipart()
            to = [sender, empty]
            token, data = told if len(told) == 2 else (b"", b"".join(told))
            if not hmac.compare_digest(token, self._token):
                self.reply(to, Denied("this is not the token of the run"))
                continue
            try:
                yield to, _REQUESTS.decode(data)
            except msgspec.MsgspecError as error:
                self.reply(to, Denied(f"no request: {error}"))

    def reply(self, to: list[bytes], reply: Reply) -> None:
        """Answer. Who asked and left gets nothing."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([*to, _ENCODER.encode(reply)], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def ask(name: str, request: Request, *, timeout_s: float = 10.0) -> Reply:
    """Ask the run of this name. Raises ConfigError: no such run, no answer in time, or what was asked is denied."""
    return ask_at(find_run(name), request, name=name, timeout_s=timeout_s)


def ask_at(folder: Path, request: Request, *, name: str, timeout_s: float = 10.0) -> Reply:
    """Ask the run of this folder."""
    try:
        endpoint, token = _way_to(folder)
    except (OSError, ValueError):
        raise ConfigError(f"{name} cannot be asked: it is starting, or was started with --no-control") from None
    with zmq.Context() as context, context.socket(zmq.REQ) as line:
        line.setsockopt(zmq.LINGER, 0)
        line.connect(endpoint)
        line.send_multipart([token, _ENCODER.encode(request)])
        if not line.poll(int(timeout_s * 1000)):
            raise ConfigError(f"{name} does not answer within {timeout_s:g} s; is it starting, or stopped (Ctrl-Z)?")
        try:
            reply = _REPLIES.decode(line.recv())
        except msgspec.MsgspecError as error:
            raise WireError(f"{name} answers what this version does not know: {error}") from None
    if isinstance(reply, Denied):
        raise ConfigError(reply.why)
    return reply


def _way_to(folder: Path) -> tuple[str, bytes]:
    """Where a run is asked, and the token it takes. Raises OSError, ValueError: it cannot be asked."""
    if _HAS_UNIX:
        return f"ipc://{folder}/{_CONTROL}", b""
    port, token = (folder / _CONTROL).read_bytes().split()
    return f"tcp://127.0.0.1:{int(port)}", token
