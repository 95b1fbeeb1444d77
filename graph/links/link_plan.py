"""What a link is agreed to be, apart from what opens it: a graph is planned before ZeroMQ is loaded."""

from dataclasses import dataclass
from typing import Literal

Policy = Literal["block", "latest", "drop_oldest"]
Transport = Literal["local", "shm", "cuda-ipc", "inline"]


def slots_needed(mailbox: int, credits: int) -> int:
    """One being written, those waiting, and those lent: then a free slot exists whenever one is asked for."""
    return 1 + mailbox + credits


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
    transport: Transport = "local"
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
