"""Slots of a link, and the sender's mailbox. Plain state without sockets or threads.

The sender owns the slots. It fills a slot and sends its number with its generation. The slot is free again when the
reader returns that generation. A late or repeated release carries an old generation and is refused.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages
from warpfuse.graph.links.link_plan import Transport


class Parcel(NamedTuple):
    """A frame in a slot and its message. planes: buffers sent behind the message by the inline transport."""

    message: messages.FrameMessage
    planes: tuple[Any, ...] = ()


class Store(Protocol):
    """The sender's side of a link's memory. Belongs to the sender's thread."""

    transport: Transport
    agreed: messages.Welcome  # the table that is filled now

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Put a frame into a free slot. One is always free, because of the number of slots (`slots_needed`)."""

    def free(self, message: messages.FrameMessage) -> None:
        """Free the slot of a frame. Raises WireError when it does not hold this generation."""

    def close(self) -> None:
        """Release the memory. What a reader has mapped stays readable."""


class Access(Protocol):
    """The reader's side of a link's memory. Belongs to the reader's thread."""

    transport: Transport

    def agree(self, welcome: messages.Welcome) -> None:
        """Open the table that holds all frames from now on. Raises WireError for one that cannot be opened."""

    def admit(self, message: messages.FrameMessage, planes: Sequence[Any]) -> None:
        """Check an announced frame against the table. Raises WireError for one that does not fit."""

    def open(self, message: messages.FrameMessage, planes: Sequence[Any]) -> Any:
        """The value of an admitted frame, valid until `done`. Raises WireError when it was overwritten."""

    def done(self, message: messages.FrameMessage) -> None:
        """End the reading of a frame. Raises WireError when it was overwritten meanwhile."""

    def close(self) -> None:
        """Release the memory."""


class SlotTable:
    """A fixed number of slots inside one process. It is both the `Store` and the `Access` of a local link.

    The reader's thread calls `agree`, `admit`, `open` and `done`; the sender's thread calls everything else.
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
        """Fill a free slot. Returns its number and generation. Raises IndexError when none is free, which is a bug."""
        slot = self._free.popleft()
        self._generations[slot] += 1
        self._values[slot] = value
        return slot, self._generations[slot]

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Put a value into a free slot, by reference."""
        slot, generation = self.put(value)
        return Parcel(messages.FrameMessage(seq, slot, generation, 0, None, (), sent_ns))

    def free(self, message: messages.FrameMessage) -> None:
        """Free the slot of a frame. Raises WireError when it is free already or holds another generation."""
        self._check(message.slot, message.generation)
        if message.slot in self._free:
            raise WireError(f"slot {message.slot} was released twice")
        self._values[message.slot] = None
        self._free.append(message.slot)

    def agree(self, welcome: messages.Welcome) -> None:
        """Check the number of slots: sender and reader share this table. Raises WireError."""
        if welcome.slots != len(self):
            raise WireError(f"the sender has {welcome.slots} slots, agreed were {len(self)}")

    def admit(self, message: messages.FrameMessage, planes: Sequence[Any]) -> None:
        """Check that the slot holds this generation. Raises WireError."""
        if planes or message.content is not None:
            raise WireError("a frame inside a process comes without planes")
        self._check(message.slot, message.generation)

    def open(self, message: messages.FrameMessage, planes: Sequence[Any]) -> Any:
        """The value itself. The sender does not fill the slot of an admitted frame before its release."""
        return self._values[message.slot]

    def done(self, message: messages.FrameMessage) -> None:
        """Nothing to check: the reader holds a reference to the value."""

    def close(self) -> None:
        """Nothing to release: the values are ordinary objects."""

    def _check(self, slot: int, generation: int) -> None:
        if not 0 <= slot < len(self._values):
            raise WireError(f"slot {slot} of a table of {len(self._values)}")
        if self._generations[slot] != generation:
            raise WireError(f"slot {slot} holds generation {self._generations[slot]}, not {generation}")


class Mailbox(deque[Parcel]):
    """Frames that wait for a credit. A frame beyond its capacity replaces the oldest.

    It differs from `stages.timing.Latest`: it belongs to one thread and holds several frames.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.dropped = 0

    def push(self, item: Parcel) -> Parcel | None:
        """Add a frame. Returns the frame dropped to make room, whose slot the caller frees; None if none was."""
        self.append(item)
        if len(self) > self.capacity:
            self.dropped += 1
            return self.popleft()
        return None
