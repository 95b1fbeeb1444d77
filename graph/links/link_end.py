"""What a link is agreed to be, and what both of its ends have in common."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import zmq

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages
from warpfuse.graph.links.slots import Policy, slots_needed

_log = logging.getLogger(__name__)
_BYTES = attrgetter("bytes")


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What a link is agreed to be before it is opened.

    name       "sender->receiver.input"
    credits    frames the reader takes before it returns one: 1 to stay fresh, 2 to overlap, k for lossless queues
    mailbox    frames that may wait in the sender
    policy     what happens when the mailbox is full: `block` the sender, or drop the oldest
    delay      number of empty frames the reader starts with (a feedback link), as in synchronous dataflow
    transport  how values cross: by reference in a process, in shared memory on a host, on a card, or in the messages
    endpoint   where the sender binds: inproc://, ipc://, tcp://; "" is inproc:// and the name
    coding     of planes in the messages: raw, lz4, or jpeg:QUALITY, which loses something and is for pictures alone
    bare       it says that a frame has passed, and carries nothing of it
    """

    name: str
    sender: str
    receiver: str
    port: str
    credits: int = 2
    mailbox: int = 1
    policy: Policy = "block"
    delay: int = 0
    transport: messages.Transport = "local"
    endpoint: str = ""
    coding: str = "raw"
    bare: bool = False

    @property
    def slots(self) -> int:
        """Slots of the link's table."""
        return slots_needed(self.mailbox, self.credits)

    @property
    def address(self) -> str:
        """The endpoint in use."""
        return self.endpoint or f"inproc://{self.name}"


class LinkEnd:
    """What both ends count.

    refused    messages that did not fit; complaint: what was wrong with the last one
    stale      messages of another epoch, or from a reader of one
    """

    def __init__(self, plan: LinkPlan, socket: "zmq.Socket[bytes]", epoch: int) -> None:
        self.plan = plan
        self.socket = socket
        self.refused = 0
        self.stale = 0
        self.complaint: str | None = None
        self._epoch = epoch

    def _refuse(self, error: WireError) -> None:
        self.refused += 1
        text = f"link {self.plan.name}: {error}"
        if self.complaint is None:  # once: who sends garbage must not fill the log with it
            _log.warning("refused a message: %s", text)
        self.complaint = text

    def _decode(self, parts: Sequence[zmq.Frame]) -> messages.Message | None:
        for part in parts:
            if len(part) > messages.MAX_BODY:
                raise WireError(f"a head or body of more than {messages.MAX_BODY} bytes")
        message = messages.decode(tuple(map(_BYTES, parts)), self._epoch)
        self.stale += message is None
        return message
