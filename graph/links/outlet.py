"""The sending end of a link."""

from collections.abc import Sequence
from typing import Any

import zmq
from msgspec import structs

from warpfuse.graph.errors import LinkCut, WireError
from warpfuse.graph.links import messages
from warpfuse.graph.links.curve import Keys
from warpfuse.graph.links.link_end import LinkEnd
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.slots import Mailbox, Store
from warpfuse.graph.links.sockets import identity, receive_parts, send_parts, sender_socket


class Outlet(LinkEnd):
    """The sending end of a link. `offer` a frame when it is not `blocked`; call `receive` when its socket is readable.

    store   the sender's side of the link's memory; closed with this end
    keys    CURVE keys, for a tcp endpoint
    sent    frames sent
    peak    most slots in use at once
    closed  the reader is gone: frames offered from now on are discarded
    failed  the stage whose failure the reader reported

    Belongs to one thread.
    """

    def __init__(
        self, context: "zmq.Context[Any]", plan: LinkPlan, store: Store, epoch: int, keys: Keys | None = None
    ) -> None:
        super().__init__(plan, sender_socket(context, plan.address, epoch, keys), epoch)
        self.sent = 0
        self.peak = 0
        self.closed = False
        self.failed: str | None = None
        self._store = store
        self._mailbox = Mailbox(plan.mailbox)
        self._blocks = plan.policy == "block"
        self._reader = identity(epoch)
        self._connections = 0
        self._credits = 0
        self._greeted = False
        self._announced: messages.Welcome | None = None
        self._lent: dict[tuple[int, int], messages.FrameMessage] = {}
        self._last: messages.Message | None = None
        self._finishing = False
        self._dropped: dict[str, int] = {}

    @property
    def endpoint(self) -> str:
        """The address the socket is bound to, with the port that was chosen for `tcp://HOST:0`."""
        return str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    @property
    def store(self) -> Store:
        """The sender's side of the link's memory."""
        return self._store

    @property
    def blocked(self) -> bool:
        """The sender has to wait before the next `offer`. Only with the policy `block`, while the mailbox is full."""
        return self._blocks and len(self._mailbox) >= self._mailbox.capacity and not self.closed

    @property
    def waiting(self) -> int:
        """Number of frames that wait for a credit."""
        return 0 if self.closed else len(self._mailbox)

    @property
    def expecting(self) -> bool:
        """A message of the reader is needed to go on: a credit for a waiting frame, or the last slots at the end."""
        return not self.closed and (len(self._mailbox) > 0 or (self._finishing and not self.finished))

    @property
    def dropped(self) -> int:
        """Number of frames that the mailbox dropped."""
        return self._mailbox.dropped

    def offer(self, seq: int, value: Any, now_ns: int = 0) -> None:
        """Put a frame into a slot and send it as soon as there is a credit. Does nothing when the reader is gone.

        now_ns  time by the run's clock; 0: the frame's hop is not timed
        """
        if self.closed:
            return
        parcel = self._store.fill(seq, value, now_ns)
        self.peak = max(self.peak, len(self._lent) + len(self._mailbox) + 1)
        dropped = self._mailbox.push(parcel)
        if dropped is not None:
            self._store.free(dropped.message)
            self._dropped["late"] = self._dropped.get("late", 0) + 1
        self._pump()

    def finish(self, failed: str | None = None) -> None:
        """End the link. Without a failure EOS follows the waiting frames; after one, ERROR replaces them.

        failed  the stage that failed
        A second call without a failure does nothing.
        """
        if failed is None and self._finishing:
            return
        if failed is not None:
            self._empty()
        self._finishing = True
        self._last = messages.Eos(self.sent + len(self._mailbox)) if failed is None else messages.Error(failed)
        self._pump()

    @property
    def finished(self) -> bool:
        """Everything was sent, and a reader in another process has returned every slot. A thread need not: it holds
        references."""
        if self.closed:
            return True
        returned = self._store.transport == "local" or not self._lent
        return self._last is None and self._greeted and not len(self._mailbox) and returned

    def receive(self) -> None:
        """Handle every message that has arrived. Raises LinkCut when frames were lost on the way."""
        received = False
        while arrived := receive_parts(self.socket):
            received = True
            sender, *parts = arrived
            if sender.bytes != self._reader:
                self.stale += 1
                continue
            if len(parts) == 1 and not len(parts[0]):
                self._connected()
                continue
            try:
                self._handle(messages.decode(parts, self._epoch))
            except WireError as error:
                self._refuse(error)
        if received:
            self._pump()

    def close(self) -> None:
        """Close the socket and the store. Call it after the thread that used this end has finished."""
        self.socket.close()
        self._store.close()

    def _connected(self) -> None:
        self._connections += 1
        if self._connections > 1 and not self.closed:
            self.closed = True
            raise LinkCut(f"link {self.plan.name}: the connection to the reader was cut; frames in flight are lost")

    def _handle(self, message: messages.Message | None) -> None:
        if isinstance(message, messages.Credit):
            lent = self._lent.get((message.table, message.slot))
            if lent is None or lent.generation != message.generation or message.grant != 1:
                raise WireError(f"a credit for slot {message.slot} generation {message.generation}, which is not lent")
            self._store.free(lent)
            del self._lent[message.table, message.slot]
            self._credits += 1
        elif isinstance(message, messages.Hello):
            self._greet(message)
        elif isinstance(message, messages.Bye):
            self.closed, self.failed = True, message.failed
        elif message is None:
            self.stale += 1
        else:
            raise WireError(f"a reader does not send {type(message).__name__}")

    def _greet(self, hello: messages.Hello) -> None:
        agreed = (self.plan.name, self.plan.credits, self._store.transport)
        if self._greeted or (hello.link, hello.credits, hello.transport) != agreed:
            raise WireError(
                f"a reader of {hello.link} with {hello.credits} credits by {hello.transport}; this is {agreed[0]} with"
                f" {agreed[1]} by {agreed[2]}" + (", and greeted" if self._greeted else "")
            )
        self._greeted = True
        self._credits = hello.credits

    def _pump(self) -> None:
        if not self._greeted or self.closed:
            return
        agreed = self._store.agreed
        if agreed is not self._announced:  # the reader does not know the current slot table
            self._announced = agreed
            self._send(agreed)
        while self._credits and self._mailbox:
            message, planes = self._mailbox.popleft()
            if self._dropped:
                message = structs.replace(message, dropped=tuple(self._dropped.items()))
                self._dropped = {}
            self._credits -= 1
            self.sent += 1
            self._lent[message.table, message.slot] = message
            self._send(message, planes)
        if self._last is not None and not len(self._mailbox) and not self.closed:
            self._send(self._last)
            self._last = None

    def _empty(self) -> None:
        while len(self._mailbox):
            self._store.free(self._mailbox.popleft().message)

    def _send(self, message: messages.Message, planes: Sequence[Any] = ()) -> None:
        try:
            send_parts(self.socket, [self._reader, *messages.encode(message, self._epoch), *planes])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.closed = True
