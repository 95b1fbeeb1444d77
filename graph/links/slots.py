"""Slots of a link, and the mailbox in front of it. Plain state; no socket, no thread.

Only the sender owns slots. A slot is filled, lent to the reader together with its generation, and free again when the
reader returns that generation: a late or doubled release finds another generation and is refused.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages
from warpfuse.graph.links.link_plan import Policy, Transport


class Parcel(NamedTuple):
    """A frame in a slot, as it is announced. planes: what goes behind the message where no memory is shared."""

    message: messages.FrameMessage
    planes: tuple[Any, ...] = ()


class Store(Protocol):
    """The sender's side of a link's memory. Belongs to the sender's thread."""

    transport: Transport
    agreed: messages.Welcome  # the table that is filled now

    @property
    def in_use(self) -> int:
        """Slots filled and not yet released."""

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Put a value into a free slot; there is one, by the count of slots."""

    def free(self, message: messages.FrameMessage) -> None:
        """The slot of a frame may be filled again. Raises WireError for one that is not filled so."""

    def close(self) -> None:
        """Give the memory back; a reader's mapping of it stays."""


class Access(Protocol):
    """The reader's side of a link's memory. Belongs to the reader's thread."""

    transport: Transport

    def agree(self, welcome: messages.Welcome) -> None:
        """Open the table that is filled from now on. Raises WireError for what cannot be one."""

    def admit(self, message: messages.FrameMessage, planes: Sequence[Any]) -> None:
        """Check an announced frame against the table. Raises WireError for one that does not fit."""

    def open(self, message: messages.FrameMessage, planes: Sequence[Any]) -> Any:
        """The value of an admitted frame, valid until `done`. Raises WireError when it is not there any more."""

    def done(self, message: messages.FrameMessage) -> None:
        """The value is not read any more. Raises WireError when it was overwritten while it was."""

    def close(self) -> None:
        """Let the memory go."""


class SlotTable:
    """A fixed number of places for values, inside one process: both sides of a link's memory in one.

    The reader's thread only opens and admits, the sender's does the rest.
    """

    transport: Transport = "local"

    def __init__(self, slots: int) -> None:
        self.agreed = messages.Welcome(slots)
        self._values: list[Any] = [None] * slots
        self._generations = [0] * slots
        self._free = deque(range(slots))

    def __len__(self) -> int:
        return len(self._values)

    @property
    def in_use(self) -> int:
        """Slots filled and not yet released."""
        return len(self._values) - len(self._free)

    def put(self, value: Any) -> tuple[int, int]:
        """Fill a free slot; returns its number and generation. Raises IndexError when none is free: a fault of ours."""
        slot = self._free.popleft()
        self._generations[slot] += 1
        self._values[slot] = value
        return slot, self._generations[slot]

    def release(self, slot: int, generation: int) -> None:
        """Free a slot. Raises WireError for a slot or generation that is not lent."""
        self._check(slot, generation)
        if slot in self._free:
            raise WireError(f"slot {slot} was released twice")
        self._values[slot] = None
        self._free.append(slot)

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Put a value, as it is."""
        slot, generation = self.put(value)
        return Parcel(messages.FrameMessage(seq, slot, generation, 0, None, (), sent_ns))

    def free(self, message: messages.FrameMessage) -> None:
        """Release the slot of a frame."""
        self.release(message.slot, message.generation)

    def agree(self, welcome: messages.Welcome) -> None:
        """The sender's table is this one."""
        if welcome.slots != len(self):
            raise WireError(f"the sender has {welcome.slots} slots, agreed were {len(self)}")

    def admit(self, message: messages.FrameMessage, planes: Sequence[Any]) -> None:
        """The slot is filled so."""
        if planes or message.content is not None:
            raise WireError("a frame inside a process comes without planes")
        self._check(message.slot, message.generation)

    def open(self, message: messages.FrameMessage, planes: Sequence[Any]) -> Any:
        """The value itself: nobody else fills the slot of an admitted frame before its release."""
        return self._values[message.slot]

    def done(self, message: messages.FrameMessage) -> None:
        """Nothing to check: the value is no slot's."""

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, slot: int, generation: int) -> None:
        if not 0 <= slot < len(self._values):
            raise WireError(f"slot {slot} of a table of {len(self._values)}")
        if self._generations[slot] != generation:
            raise WireError(f"slot {slot} holds generation {self._generations[slot]}, not {generation}")


class Mailbox(deque[Parcel]):
    """Frames that wait for a credit. `block` says it is full; the dropping policies make room and count it.

    Not a `stages.timing.Latest`: it belongs to one thread, holds several frames, and with `block` drops none.
    """

    def __init__(self, policy: Policy, capacity: int) -> None:
        super().__init__()
        self.policy = policy
        self.capacity = capacity
        self.dropped = 0

    @property
    def full(self) -> bool:
        """A frame offered now would have to wait (only with `block`)."""
        return self.policy == "block" and len(self) >= self.capacity

    def push(self, item: Parcel) -> Parcel | None:
        """Add a frame. Returns the one dropped to make room, whose slot the caller frees."""
        self.append(item)
        if len(self) > self.capacity:
            self.dropped += 1
            return self.popleft()
        return None
