"""The sockets of links, and every option they are given, on purpose.

    SNDHWM, RCVHWM 64      a fuse against a fault of ours: credits are the limit. Messages this small pile up by the
                           hundred below any mark, in ZeroMQ's batches and the kernel's buffers
    ROUTER_MANDATORY       a message nobody can get is an error, not silence
    ROUTER_HANDOVER        a reader whose connection broke is not locked out by its own ghost
    PROBE_ROUTER           a reader announces every connection: a second one means that the first was cut, and that
                           what was in flight is gone. Without it a link would wait for ever for a lost credit
    IMMEDIATE 0            on purpose: a reader may start first, and its HELLO waits for the sender
    LINGER                 inproc 0: all threads are over by then. Else one second: EOS and BYE must reach the kernel
    HEARTBEAT_*            ipc and tcp: a peer that is gone or stopped for 3 s counts as cut
    MAXMSGSIZE             ipc and tcp, a part: what is longer ends the connection before memory is asked for
    RECONNECT_IVL(_MAX)    50 ms, doubling up to 2 s
    TCP_KEEPALIVE, IPV6    tcp: finds a host that vanished while nothing flows; both families
    CURVE, ZAP             tcp always, see curve.py

Never CONFLATE (it takes messages apart), never PUB/SUB, never HWM 1 in the hope of low latency.
"""

import errno
import time
from collections.abc import Sequence
from typing import Any

import zmq

from warpfuse.graph.errors import KeysMissing
from warpfuse.graph.links import messages
from warpfuse.graph.links.curve import Keys, as_client, as_server

HIGH_WATER_MARK = 64
MAX_PLANE = 1 << 28  # bytes of one plane behind a message

_EVENTS, _POLLIN, _SNDMORE = (
    int(zmq.EVENTS),
    int(zmq.POLLIN),
    int(zmq.SNDMORE),
)  # numbers: enums cost more than messages
_COPIED = 1 << 16  # parts from this size on are handed to ZeroMQ without a copy
_BIND_PATIENCE_S = 5.0
_BIND_AGAIN_S = 0.02


def sender_socket(context: "zmq.Context[Any]", endpoint: str, epoch: int, keys: Keys | None) -> "zmq.Socket[bytes]":
    """A bound ROUTER. Raises KeysMissing for tcp without a server's keys."""
    socket = _socket(context, zmq.ROUTER, endpoint)
    try:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if not endpoint.startswith("inproc:"):
            socket.setsockopt(zmq.MAXMSGSIZE, 2 * messages.MAX_BODY)  # nothing but greetings and credits comes back
        if endpoint.startswith("tcp:"):
            as_server(socket, _required(keys, endpoint))
        _bind(socket, _place(endpoint, epoch))
    except BaseException:
        socket.close(0)
        raise
    return socket


def reader_socket(
    context: "zmq.Context[Any]", endpoint: str, epoch: int, keys: Keys | None, *, planes: bool
) -> "zmq.Socket[bytes]":
    """A connected DEALER. planes: they come behind the messages. Raises KeysMissing for tcp without a client's keys."""
    socket = _socket(context, zmq.DEALER, endpoint)
    try:
        socket.setsockopt(zmq.ROUTING_ID, identity(epoch))
        if not endpoint.startswith("inproc:"):
            socket.setsockopt(zmq.PROBE_ROUTER, 1)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_PLANE if planes else 2 * messages.MAX_BODY)
        if endpoint.startswith("tcp:"):
            as_client(socket, _required(keys, endpoint))
        socket.connect(_place(endpoint, epoch))
    except BaseException:
        socket.close(0)
        raise
    return socket


def identity(epoch: int) -> bytes:
    """How the reader of an epoch is called: another name each time, so that a late one is no obstacle to the next."""
    return b"reader.%d" % epoch


def readable(socket: "zmq.Socket[bytes]") -> bool:
    """A message can be received without waiting. Asked, not caught: an exception costs more than a message."""
    return bool(int(socket.get(_EVENTS)) & _POLLIN)


def send_parts(socket: "zmq.Socket[bytes]", parts: Sequence[Any]) -> None:
    """Send a message. Large planes are read by ZeroMQ where they lie: they are not written again before their credit.

    Part by part: pyzmq's own `send_multipart` and `recv_multipart` look at everything twice, which costs five times
    what the message does.
    """
    for part in parts[:-1]:
        socket.send(part, _SNDMORE, len(part) < _COPIED)
    socket.send(parts[-1], 0, len(parts[-1]) < _COPIED)


def receive_parts(socket: "zmq.Socket[bytes]") -> list[zmq.Frame]:
    """The message that is there, its parts where ZeroMQ has put them."""
    part: zmq.Frame = socket.recv(0, False)
    parts = [part]
    while part.more:
        part = socket.recv(0, False)
        parts.append(part)
    return parts


def _socket(context: "zmq.Context[Any]", kind: int, endpoint: str) -> "zmq.Socket[bytes]":
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    if endpoint.startswith("inproc:"):
        socket.setsockopt(zmq.LINGER, 0)
        return socket
    socket.setsockopt(zmq.LINGER, 1000)
    socket.setsockopt(zmq.IMMEDIATE, 0)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 5000)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    if endpoint.startswith("tcp:"):
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
        socket.setsockopt(zmq.IPV6, 1)
    return socket


def _place(endpoint: str, epoch: int) -> str:
    """The address of an epoch. A tcp port is the same in each; a path or name is not, since a socket that is closed
    takes its path away whenever it gets to it, even if the next one has been bound there meanwhile."""
    return endpoint if endpoint.startswith("tcp:") else f"{endpoint}.{epoch}"


def _bind(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Bind; the tcp port of the epoch before is free a moment after its socket was closed."""
    begun = time.monotonic()
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as error:
            if error.errno != errno.EADDRINUSE or not endpoint.startswith("tcp:"):
                raise
            if time.monotonic() - begun > _BIND_PATIENCE_S:
                raise
        time.sleep(_BIND_AGAIN_S)


def _required(keys: Keys | None, endpoint: str) -> Keys:
    if keys is None:
        raise KeysMissing(
            f"{endpoint}: links between hosts are encrypted, and no keys were given."
            " Make them with: warpfuse keys DIR, and give DIR on both hosts"
        )
    return keys
