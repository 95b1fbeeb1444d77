"""Slots of a link inside one process, and the mailbox in front of it. Plain state; no socket, no thread.

Only the sender owns slots. A slot is filled, lent to the reader together with its generation, and free again when the
reader returns that generation: a late or doubled release finds another generation and is refused.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from warpfuse.graph.errors import WireError

Policy = Literal["block", "latest", "drop_oldest"]


def slots_needed(mailbox: int, credits: int) -> int:
    """One being written, those waiting, and those lent: then a free slot exists whenever one is asked for."""
    return 1 + mailbox + credits


class SlotTable:
    """A fixed number of places for values. The reader's thread only reads `get`, the sender's does the rest."""

    def __init__(self, slots: int) -> None:
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

    def get(self, slot: int, generation: int) -> Any:
        """The value lent in a slot. Raises WireError for a slot or generation that is not lent."""
        self._check(slot, generation)
        return self._values[slot]

    def release(self, slot: int, generation: int) -> None:
        """Free a slot. Raises WireError for a slot or generation that is not lent."""
        self._check(slot, generation)
        if slot in self._free:
            raise WireError(f"slot {slot} was released twice")
        self._values[slot] = None
        self._free.append(slot)

    def _check(self, slot: int, generation: int) -> None:
        if not 0 <= slot < len(self._values):
            raise WireError(f"slot {slot} of a table of {len(self._values)}")
        if self._generations[slot] != generation:
            raise WireError(f"slot {slot} holds generation {self._generations[slot]}, not {generation}")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame in the mailbox."""

    seq: int
    slot: int
    generation: int


class Mailbox:
    """Frames that wait for a credit. `block` says it is full; the dropping policies make room and count it."""

    def __init__(self, policy: Policy, capacity: int) -> None:
        self.policy = policy
        self.capacity = capacity
        self.dropped = 0
        self._waiting: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """A frame offered now would have to wait (only with `block`)."""
        return self.policy == "block" and len(self._waiting) >= self.capacity

    def push(self, item: Waiting) -> Waiting | None:
        """Add a frame. Returns the one dropped to make room, whose slot the caller frees."""
        self._waiting.append(item)
        if len(self._waiting) > self.capacity:
            self.dropped += 1
            return self._waiting.popleft()
        return None

    def pop(self) -> Waiting:
        """The frame to send next."""
        return self._waiting.popleft()
