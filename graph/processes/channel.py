"""The channel between the supervisor and one worker process: messages, and detection of a dead process.

Note: heartbeats. ZeroMQ's I/O thread answers ZeroMQ's own heartbeats (ZMTP PING and PONG), without Python's GIL. So a
stage that holds the GIL for ten seconds is not taken for a dead process. A process that was stopped, or whose host is
gone, is detected after `HEARTBEAT_MS` + `SILENCE_MS` + `GRACE_NS`. Heartbeats sent by Python could not tell the two
cases apart.
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
"""Time to reconnect after a lost connection. A living process, after its machine was suspended, is back by then."""


class Channel:
    """The supervisor's end of a channel. One thread uses it.

    peer  routing id of the worker, set by `adopt`. Messages are sent to it only; other processes may connect as well
    """

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
        """Make this peer the channel's worker."""
        self.peer = peer

    def send(self, data: bytes) -> None:
        """Send a message to the worker. It is discarded if the channel has no worker or the worker is dead."""
        if self.peer is not None:
            with contextlib.suppress(zmq.Again):
                self.socket.send_multipart([self.peer, data], zmq.NOBLOCK)

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the messages that have arrived, as (sender's routing id, data)."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            peer, *parts = self.socket.recv_multipart()
            yield peer, b"".join(parts)

    def watch(self, now_ns: int) -> None:
        """Record connections made and lost. Call it when `monitor` is readable."""
        while int(self.monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self.monitor)
            if event["event"] == zmq.EVENT_ACCEPTED:  # its value is the connection's number; a handshake event has none
                self._connections.add(event["value"])
                self._lost_ns = None
            elif event["value"] in self._connections:
                self._connections.discard(event["value"])
                self._lost_ns = None if self._connections else now_ns

    def dead(self, now_ns: int) -> bool:
        """The worker's connection has been lost for longer than the grace period."""
        return self._lost_ns is not None and now_ns - self._lost_ns > GRACE_NS

    def close(self) -> None:
        """Close the channel's sockets."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


def events(channel: Channel, worker: str) -> Iterator[protocol.Event]:
    """Yield the worker's events. A HELLO of the worker makes its sender the channel's worker.

    Messages of other senders, and messages that cannot be decoded, are logged and discarded.
    """
    for peer, data in channel.messages():
        try:
            event = protocol.event(data)
        except WireError as error:
            _LOG.warning("line to worker %s: %s", worker, error)
            continue
        if isinstance(event, protocol.WorkerHello) and event.worker == worker:
            channel.adopt(peer)
        if peer == channel.peer:
            yield event
        else:
            _LOG.warning("line to worker %s: a stranger said %s", worker, type(event).__name__)


def open_channel(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: Keys | None = None
) -> "zmq.Socket[bytes]":
    """Open the worker's end of a channel. keys: CURVE keys, for a channel between hosts."""
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    _configure(socket)
    if keys is not None:
        as_client(socket, keys)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.connect(endpoint)
    return socket


def _configure(socket: "zmq.Socket[bytes]") -> None:
    socket.setsockopt(zmq.LINGER, 1000)  # so that the last messages are still sent
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, 64 << 20)
