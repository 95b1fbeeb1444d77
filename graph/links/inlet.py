"""The receiving end of a link."""

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq

from warpfuse.graph.errors import LinkCut, WireError
from warpfuse.graph.links import messages
from warpfuse.graph.links.curve import Keys
from warpfuse.graph.links.link_end import LinkEnd
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.slots import Access, Parcel
from warpfuse.graph.links.sockets import reader_socket, receive_parts, send_parts


class Inlet(LinkEnd):
    """The receiving end of a link. When `ready`, `take` gives the next frame; `done` returns its slot to the sender.

    access   the reader's side of the link's memory; closed with this end
    keys     CURVE keys, for a tcp endpoint
    sent_ns  when the sender handed over the frame taken last, by the run's clock; 0: an initial empty frame of a
             delay, or a frame without that time
    dropped  frames that the sender dropped, by reason
    torn     frames that were overwritten before they were read completely

    Belongs to one thread.
    """

    def __init__(
        self, context: "zmq.Context[Any]", plan: LinkPlan, access: Access, epoch: int, keys: Keys | None = None
    ) -> None:
        inline = access.transport == "inline"
        super().__init__(plan, reader_socket(context, plan.address, epoch, keys, planes=inline), epoch)
        self.ended = False
        self.failed: str | None = None
        self.received = 0
        self.torn = 0
        self.sent_ns = 0
        self.dropped: dict[str, int] = {}
        self._access = access
        # Note: initial empty frames of a delay. They were never sent, so they have no slot and return no credit.
        self._arrived: deque[Parcel | None] = deque([None] * plan.delay)
        self._held: messages.FrameMessage | None = None
        self._lent = 0
        self._newest = -1
        send_parts(self.socket, messages.encode(messages.Hello(plan.name, plan.credits, access.transport), epoch))

    @property
    def ready(self) -> bool:
        """A frame can be taken."""
        return bool(self._arrived)

    def take(self) -> Any:
        """The next frame; None for an initial empty frame of a delay. Valid until `done`; copy it to keep it longer
        (`stages.borrowed`).

        Raises LinkCut when the slot has been overwritten.
        """
        parcel = self._arrived.popleft()
        if parcel is None:
            self._held, self.sent_ns = None, 0
            return None
        self._held = message = parcel.message
        self.sent_ns = message.sent_ns
        try:
            return self._access.open(message, parcel.planes)
        except WireError as error:
            self.torn += 1
            raise LinkCut(f"link {self.plan.name}: {error}") from None

    def done(self) -> None:
        """Return the slot of the frame taken last, and with it a credit for the next one.

        Raises LinkCut when the frame was overwritten while it was read.
        """
        if self._held is None:
            return
        held, self._held = self._held, None
        try:
            self._access.done(held)
        except WireError as error:
            self.torn += 1
            raise LinkCut(f"link {self.plan.name}: {error}") from None
        self._lent -= 1
        self._send(messages.Credit(1, held.slot, held.generation, held.table))

    def bye(self, failed: str | None = None) -> None:
        """Tell the sender that this reader takes no more frames. failed: the stage whose failure is the reason."""
        self._send(messages.Bye(failed))

    def receive(self) -> None:
        """Handle every message that has arrived. Raises LinkCut when frames were lost on the way."""
        while parts := receive_parts(self.socket):
            try:
                self._handle(messages.decode(parts[:2], self._epoch), parts[2:])
            except LinkCut:
                raise
            except WireError as error:
                self._refuse(error)

    def close(self) -> None:
        """Close the socket and release the memory. Call it after the thread that used this end has finished."""
        self.socket.close()
        self._arrived.clear()
        self._access.close()

    def _handle(self, message: messages.Message | None, planes: Sequence[Any]) -> None:
        if isinstance(message, messages.FrameMessage):
            self._accept(message, planes)
        elif planes:
            raise WireError(f"{len(planes)} planes behind a {type(message).__name__}")
        elif isinstance(message, messages.Welcome):
            self._access.agree(message)
        elif isinstance(message, messages.Eos):
            if message.frames != self.received:
                raise LinkCut(f"link {self.plan.name}: {message.frames} frames sent, {self.received} received")
            self.ended = True
        elif isinstance(message, messages.Error):
            self.ended = True
            self.failed = message.stage
            self._arrived.clear()
        elif message is None:
            self.stale += 1
        else:
            raise WireError(f"a sender does not send {type(message).__name__}")

    def _accept(self, message: messages.FrameMessage, planes: Sequence[Any]) -> None:
        if self.ended:
            raise WireError(f"frame {message.seq} after the end")
        if self._lent >= self.plan.credits:
            raise WireError(f"frame {message.seq} without a credit")
        if message.seq <= self._newest:
            raise WireError(f"frame {message.seq} after frame {self._newest}")
        self._access.admit(message, planes)
        self._newest = message.seq
        self._lent += 1
        self.received += 1
        for reason, count in message.dropped:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        self._arrived.append(Parcel(message, tuple(planes)))

    def _send(self, message: messages.Message) -> None:
        with contextlib.suppress(zmq.Again):  # the sending end, of this process, is closed: nobody counts credits
            send_parts(self.socket, messages.encode(message, self._epoch), wait=False)
