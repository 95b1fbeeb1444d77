"""The two ends of a link, on ZeroMQ sockets: `Outlet` sends, `Inlet` receives.

ROUTER binds, DEALER connects, one pair a link. ZeroMQ's high-water mark does not bound latency for small messages
(hundreds of descriptors fit into its batches), so it is set far above what the credits allow, as a fuse against a fault
of ours, and never as the limiter.

An end belongs to one thread. The sockets are closed by whoever made them, after all threads are done: a socket closed
right after its last send may take the message with it.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import zmq

from warpfuse.graph import wire
from warpfuse.graph.errors import WireError
from warpfuse.graph.slots import Mailbox, Policy, SlotTable, Waiting, slots_needed

Transport = Literal["local", "shm", "cuda-ipc", "inline"]

HIGH_WATER_MARK = 64

_READER = b"reader"


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What a link is agreed to be before it is opened.

    name      "sender->receiver.input"
    credits   frames the reader takes before it returns one: 1 to stay fresh, 2 to overlap, k for lossless queues
    mailbox   frames that may wait in the sender
    policy    what happens when the mailbox is full: `block` the sender, or drop the oldest
    delay     number of empty frames the reader starts with (a feedback link), as in synchronous dataflow
    transport how a value gets across: by reference, shared memory, a card's own memory, in the message
    endpoint  where the sender binds; empty: inproc, by the name
    """

    name: str
    sender: str
    receiver: str
    port: str
    credits: int = 2
    mailbox: int = 1
    policy: Policy = "block"
    delay: int = 0
    transport: Transport = "local"
    endpoint: str = ""

    def __post_init__(self) -> None:
        if not self.endpoint:
            object.__setattr__(self, "endpoint", f"inproc://{self.name}")

    @property
    def slots(self) -> int:
        """Slots of the link's table."""
        return slots_needed(self.mailbox, self.credits)


class Outlet:
    """The sending end. `offer` when not `blocked`; feed it what arrives through `receive`."""

    def __init__(self, context: "zmq.Context[Any]", plan: LinkPlan, table: SlotTable, epoch: int) -> None:
        self.plan = plan
        self.sent = 0
        self.peak = 0
        self.closed = False
        self.failed: str | None = None
        self.socket = _socket(context, zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unroutable message is an error, not silence
        self.socket.bind(plan.endpoint)
        self._table = table
        self._epoch = epoch
        self._mailbox = Mailbox(plan.policy, plan.mailbox)
        self._credits = 0
        self._greeted = False
        self._last: wire.Message | None = None

    @property
    def blocked(self) -> bool:
        """The sender has to wait before the next `offer`."""
        return not self.closed and self._mailbox.full

    @property
    def waiting(self) -> int:
        """Frames that wait for a credit."""
        return 0 if self.closed else len(self._mailbox)

    @property
    def ending(self) -> bool:
        """`finish` has been called, and what it has to send may not have gone out yet."""
        return self._last is not None

    @property
    def dropped(self) -> int:
        """Frames the mailbox dropped."""
        return self._mailbox.dropped

    def offer(self, seq: int, value: Any) -> None:
        """Put a frame into a slot and send it as soon as there is a credit. To a reader that is gone: nothing."""
        if self.closed:
            return
        slot, generation = self._table.put(value)
        self.peak = max(self.peak, self._table.in_use)
        dropped = self._mailbox.push(Waiting(seq, slot, generation))
        if dropped is not None:
            self._table.release(dropped.slot, dropped.generation)
        self._pump()

    def finish(self, failed: str | None = None) -> None:
        """End the link: EOS after the frames that wait, or ERROR instead of them, with the stage that failed."""
        if failed is not None:
            while len(self._mailbox):
                item = self._mailbox.pop()
                self._table.release(item.slot, item.generation)
        self._last = wire.Eos(self.sent + len(self._mailbox)) if failed is None else wire.Error(failed)
        self._pump()

    @property
    def finished(self) -> bool:
        """Nothing is left to send."""
        return self.closed or (self._last is None and self._greeted and not len(self._mailbox))

    def receive(self) -> None:
        """Handle every message that has arrived. Raises WireError on one that does not fit."""
        while _readable(self.socket):
            _, *parts = self.socket.recv_multipart()
            message = wire.decode(parts, self._epoch)
            if isinstance(message, wire.Hello):
                self._greeted = True
                self._credits += message.credits
                self._send(wire.Welcome(len(self._table)))
            elif isinstance(message, wire.Credit):
                if message.slot >= 0:
                    self._table.release(message.slot, message.generation)
                self._credits += message.grant
            elif isinstance(message, wire.Bye):
                self.closed, self.failed = True, message.failed
            elif message is not None:
                raise WireError(f"link {self.plan.name}: a reader does not send {type(message).__name__}")
        self._pump()

    def close(self) -> None:
        """Close the socket. After the thread that used it has ended."""
        self.socket.close()

    def _pump(self) -> None:
        if not self._greeted or self.closed:
            return
        while self._credits and len(self._mailbox):
            item = self._mailbox.pop()
            self._credits -= 1
            self.sent += 1
            self._send(wire.FrameMessage(item.seq, item.slot, item.generation))
        if self._last is not None and not len(self._mailbox):
            self._send(self._last)
            self._last = None

    def _send(self, message: wire.Message) -> None:
        try:
            self.socket.send_multipart([_READER, *wire.encode(message, self._epoch)])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.closed = True


class Inlet:
    """The receiving end. `head` is the next frame, if there is one; `take` and later `done` return its slot."""

    def __init__(self, context: "zmq.Context[Any]", plan: LinkPlan, table: SlotTable, epoch: int) -> None:
        self.plan = plan
        self.ended = False
        self.failed: str | None = None
        self.received = 0
        self.socket = _socket(context, zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, _READER)
        self.socket.connect(plan.endpoint)
        self._table = table
        self._epoch = epoch
        # Note: primed delays. They are not frames of the link: no slot is behind them and no credit is returned.
        self._arrived: deque[wire.FrameMessage | None] = deque([None] * plan.delay)
        self._held: wire.FrameMessage | None = None
        self._send(wire.Hello(plan.name, plan.credits))

    @property
    def ready(self) -> bool:
        """A frame can be taken."""
        return bool(self._arrived)

    def take(self) -> Any:
        """The next frame's value; None for a primed delay. Valid until `done`."""
        self._held = self._arrived.popleft()
        if self._held is None:
            return None
        return self._table.get(self._held.slot, self._held.generation)

    def done(self) -> None:
        """Return the slot of the frame taken last, and with it the credit for another."""
        if self._held is not None:
            self._send(wire.Credit(1, self._held.slot, self._held.generation))
            self._held = None

    def bye(self, failed: str | None = None) -> None:
        """Tell the sender that nothing more is taken, and which stage failed if that is why."""
        self._send(wire.Bye(failed))

    def receive(self) -> None:
        """Handle every message that has arrived. Raises WireError on one that does not fit."""
        while _readable(self.socket):
            parts = self.socket.recv_multipart()
            message = wire.decode(parts, self._epoch)
            if isinstance(message, wire.FrameMessage):
                self.received += 1
                self._arrived.append(message)
            elif isinstance(message, wire.Eos):
                if message.frames != self.received:
                    raise WireError(f"link {self.plan.name}: {message.frames} frames sent, {self.received} received")
                self.ended = True
            elif isinstance(message, wire.Error):
                self.ended = True
                self.failed = message.stage
                self._arrived.clear()
            elif message is not None and not isinstance(message, wire.Welcome):
                raise WireError(f"link {self.plan.name}: a sender does not send {type(message).__name__}")

    def close(self) -> None:
        """Close the socket. After the thread that used it has ended."""
        self.socket.close()

    def _send(self, message: wire.Message) -> None:
        self.socket.send_multipart(wire.encode(message, self._epoch))


def _readable(socket: "zmq.Socket[bytes]") -> bool:
    """A message can be received without waiting. Asked, not caught: an exception costs more than a message."""
    return bool(int(socket.get(zmq.EVENTS)) & zmq.POLLIN)


def _socket(context: "zmq.Context[Any]", kind: int) -> "zmq.Socket[bytes]":
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.LINGER, 0)  # what is unsent when a run is torn down concerns nobody
    return socket
