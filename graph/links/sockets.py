"""The sockets of links and their options.

    SNDHWM, RCVHWM 64      a safeguard against a bug: credits are the limit. A mark cannot bound messages this small,
                           since hundreds of them fit into ZeroMQ's batches and the kernel's buffers
    ROUTER_MANDATORY       sending to a reader that is not connected is an error; by default the message is discarded
    ROUTER_HANDOVER        a reader that connects again replaces its old connection; by default it would be refused
    PROBE_ROUTER           a reader announces every connection. A second one means that the first was cut and its
                           messages are lost. Without it a link would wait for ever for a lost credit
    IMMEDIATE 0            a reader may start first: its HELLO is queued until the sender is there
    LINGER                 inproc 0: all threads have ended by then. Else one second, so that EOS and BYE are sent
    HEARTBEAT_*            ipc and tcp: the connection to a peer that does not answer for 3 s is cut
    MAXMSGSIZE             ipc and tcp: a longer part ends the connection, before memory is allocated for it
    RECONNECT_IVL(_MAX)    50 ms, doubling up to 2 s
    TCP_KEEPALIVE, IPV6    tcp: detects a host that vanished while the link is idle; IPv4 and IPv6
    CURVE, ZAP             tcp always, see curve.py

Not used: CONFLATE (it breaks messages of several parts), PUB/SUB, a high-water mark of 1 (it does not lower latency).
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

_EVENTS, _POLLIN, _SNDMORE, _DONTWAIT = (
    int(zmq.EVENTS),
    int(zmq.POLLIN),
    int(zmq.SNDMORE),
    int(zmq.DONTWAIT),
)  # plain ints: converting pyzmq's enums takes longer than sending a message
_COPIED = 1 << 16  # bytes: parts of this size or more are sent without a copy
_BIND_PATIENCE_S = 5.0
_BIND_AGAIN_S = 0.02


def sender_socket(context: "zmq.Context[Any]", endpoint: str, epoch: int, keys: Keys | None) -> "zmq.Socket[bytes]":
    """A bound ROUTER. Raises KeysMissing for tcp without a server's keys."""
    socket = _socket(context, zmq.ROUTER, endpoint)
    try:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if not endpoint.startswith("inproc:"):
            socket.setsockopt(zmq.MAXMSGSIZE, 2 * messages.MAX_BODY)  # a reader sends small messages only
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
    """A connected DEALER. planes: messages carry them (inline). Raises KeysMissing for tcp without a client's keys."""
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
    """The routing id of a link's reader. Each epoch has its own, so a reader of the last one cannot block the next."""
    return b"reader.%d" % epoch


def send_parts(socket: "zmq.Socket[bytes]", parts: Sequence[Any], *, wait: bool = True) -> None:
    """Send a message part by part. ZeroMQ reads large planes in place; they are not overwritten before their credit.

    pyzmq's `send_multipart` and `recv_multipart` are not used: they check every part twice, which costs five times the
    sending itself.
    """
    flags = 0 if wait else _DONTWAIT
    for part in parts[:-1]:
        socket.send(part, flags | _SNDMORE, len(part) < _COPIED)
    socket.send(parts[-1], flags, len(parts[-1]) < _COPIED)


def receive_parts(socket: "zmq.Socket[bytes]") -> list[zmq.Frame]:
    """The parts of the next message, without a copy; an empty list if none has arrived.

    Asking for the socket's events first is cheaper than catching zmq.Again: an exception costs more than a message.
    """
    if not int(socket.get(_EVENTS)) & _POLLIN:
        return []
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
    """The address of an epoch. A tcp port stays the same. A path or name gets the epoch's number, since ZeroMQ unlinks
    the path of a closed socket some time later, when the next socket may have been bound there already."""
    return endpoint if endpoint.startswith("tcp:") else f"{endpoint}.{epoch}"


def _bind(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Bind. A tcp port is tried again for a while: the system frees that of the last epoch's socket a moment later."""
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
