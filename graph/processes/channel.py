"""The line between the supervisor and one life of a worker process: messages, and whether the process lives.

Note: who answers a heartbeat. ZeroMQ's own (ZMTP PING and PONG) are answered by its I/O thread, which needs no lock of
Python's: a stage that holds the interpreter for ten seconds is not taken for a dead process, and one that was stopped
or lost its host is found after `HEARTBEAT_MS` + `SILENCE_MS` + the grace. Beats sent by Python would mix the two up.
"""

import contextlib
import logging
from collections.abc import Iterator

import zmq
from zmq.utils.monitor import recv_monitor_message

from warpfuse.graph.errors import WireError
from warpfuse.graph.links.curve import Keys, as_client, as_server
from warpfuse.graph.processes import protocol

_LOG = logging.getLogger(__name__)

HEARTBEAT_MS = 300
SILENCE_MS = 1000
GRACE_NS = 400_000_000
"""After a lost connection: a process that lives, on a machine that slept for a while, is back by then."""


class Channel:
    """The supervisor's end. One thread uses it. Others may knock; only who was adopted is spoken to."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: Keys | None = None) -> None:
        self.endpoint = endpoint
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        _configure(self.socket)
        if keys is not None:
            as_server(self.socket, keys)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.socket.bind(endpoint)
        self.peer: bytes | None = None
        self._connections: set[int] = set()
        self._lost_ns: int | None = None

    def adopt(self, peer: bytes) -> None:
        """This one is the worker."""
        self.peer = peer

    def send(self, data: bytes) -> None:
        """Send a message to the worker; it is lost with one that dies, and with none."""
        if self.peer is not None:
            with contextlib.suppress(zmq.Again):
                self.socket.send_multipart([self.peer, data], zmq.NOBLOCK)

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """What has arrived: (from whom, what)."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            peer, *parts = self.socket.recv_multipart()
            yield peer, b"".join(parts)

    def watch(self, now_ns: int) -> None:
        """Take note of connections made and lost. When `monitor` is readable."""
        while int(self.monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self.monitor)
            if event["event"] == zmq.EVENT_ACCEPTED:  # its value is the connection; that of a handshake is nothing
                self._connections.add(event["value"])
                self._lost_ns = None
            elif event["value"] in self._connections:
                self._connections.discard(event["value"])
                self._lost_ns = None if self._connections else now_ns

    def dead(self, now_ns: int) -> bool:
        """The worker was connected and has been silent for too long."""
        return self._lost_ns is not None and now_ns - self._lost_ns > GRACE_NS

    def close(self) -> None:
        """Close it."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


def events(channel: Channel, worker: str) -> Iterator[protocol.Event]:
    """What the worker has said. Who is not it, and what is not a word, is left out and logged."""
    for peer, data in channel.messages():
        try:
            word = protocol.event(data)
        except WireError as error:
            _LOG.warning("line to worker %s: %s", worker, error)
            continue
        if isinstance(word, protocol.WorkerHello) and word.worker == worker:
            channel.adopt(peer)
        if peer == channel.peer:
            yield word
        else:
            _LOG.warning("line to worker %s: a stranger said %s", worker, type(word).__name__)


def open_channel(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: Keys | None = None
) -> "zmq.Socket[bytes]":
    """The worker's end of a line. keys: of a line between hosts."""
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    _configure(socket)
    if keys is not None:
        as_client(socket, keys)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.connect(endpoint)
    return socket


def _configure(socket: "zmq.Socket[bytes]") -> None:
    socket.setsockopt(zmq.LINGER, 1000)  # last words
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, 64 << 20)
