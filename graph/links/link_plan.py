"""The plan of a link. It imports no transport, since a graph is planned before ZeroMQ is loaded."""

from dataclasses import dataclass
from typing import Literal

Policy = Literal["block", "latest", "drop_oldest"]
Transport = Literal["local", "shm", "cuda-ipc", "inline"]


def slots_needed(mailbox: int, credits: int) -> int:
    """Slots of a link: one to write, one for each waiting frame, one for each credit. So a free slot always exists."""
    return 1 + mailbox + credits


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What both ends of a link agree on before it is opened.

    name       "sender->receiver.input"
    credits    frames sent before the reader has returned one: 1 for the least delay, 2 to overlap sending and work,
               more for a queue
    mailbox    frames that may wait in the sender for a credit
    policy     what happens when the mailbox is full: `block` the sender, or drop the oldest frame
    delay      number of empty frames the reader starts with (a feedback link), as in synchronous dataflow
    transport  where frames lie: local by reference, shm in shared memory, cuda-ipc on a card, inline in the messages
    endpoint   address the sender binds: inproc://, ipc://, tcp://; "" means inproc:// with the link's name
    coding     of planes in inline messages: raw, lz4, or jpeg:QUALITY (lossy, pictures only)
    bare       the link signals that a frame has passed and carries none of its data
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
    coding: str = "raw"
    bare: bool = False

    @property
    def slots(self) -> int:
        """Number of slots in the link's table."""
        return slots_needed(self.mailbox, self.credits)

    @property
    def address(self) -> str:
        """The endpoint, with the default filled in."""
        return self.endpoint or f"inproc://{self.name}"
