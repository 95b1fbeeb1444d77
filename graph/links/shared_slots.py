"""Slots in memory that two processes share. The sender copies a picture into a slot, the reader uses it in place.

A `Table` is the memory itself: a file in shared memory (`shared_memory.py`) or a pool on a card (`cuda_ipc.py`).

The first frame decides the size of the first table. A frame that does not fit gets a larger table with the next number;
the first frame of a feedback link, for instance, is empty. The old table is removed when its last slot is returned.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.graph.links.link_plan import Transport
from warpfuse.graph.links.slots import Parcel, SlotTable


class Table(Protocol):
    """The memory of a number of slots, created by the sender or opened by the reader."""

    slots: int
    slot_bytes: int
    copies: int  # planes copied into slots; tests check that a link copies a picture once
    copied_bytes: int

    def write(self, slot: int, generation: int, packing: tensor_layout.Packing) -> None:
        """Sender: copy the planes into a slot."""

    def views(self, slot: int, wanted: tuple[messages.Plane, ...]) -> tuple[Tensor, ...]:
        """Reader: tensors over a slot's planes. Not checked: `tensor_layout.check` has been called before."""

    def check(self, slot: int, generation: int) -> None:
        """Reader, when a frame is announced. Raises WireError when the slot is seen to hold another generation."""

    def before(self, slot: int, generation: int) -> None:
        """Reader, before reading. Raises WireError when the slot holds another generation."""

    def after(self, slot: int, generation: int) -> None:
        """Reader, after reading. Raises WireError when the slot was filled again meanwhile."""

    def close(self) -> None:
        """Unmap the memory; in the sender also remove it."""


class SharedSlots:
    """The sender's side (`slots.Store`).

    make  (table number, slot_bytes) -> a new table and the message that lets the reader open it
    """

    def __init__(
        self, transport: Transport, slots: int, make: Callable[[int, int], tuple[Table, messages.Welcome]]
    ) -> None:
        self.transport = transport
        self.agreed = messages.Welcome(slots)  # without memory before the first frame
        self._make = make
        self._slots = slots
        self._tables: dict[int, tuple[Table, SlotTable]] = {}
        self._number = 0
        self._copies = self._copied_bytes = 0

    @property
    def in_use(self) -> int:
        """Slots filled and not yet released, in all tables."""
        return sum(slots.in_use for _, slots in self._tables.values())

    @property
    def copies(self) -> int:
        """Number of planes copied into slots."""
        return self._copies + sum(table.copies for table, _ in self._tables.values())

    @property
    def copied_bytes(self) -> int:
        """Bytes copied into slots."""
        return self._copied_bytes + sum(table.copied_bytes for table, _ in self._tables.values())

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Copy a RawFrame or Frame into a free slot. Raises SharedMemoryFull when a new table does not fit."""
        packing = tensor_layout.pack(value)
        if self._number not in self._tables or packing.nbytes > self._tables[self._number][0].slot_bytes:
            self._grow(packing.nbytes)
        table, slots = self._tables[self._number]
        slot, generation = slots.put(None)
        table.write(slot, generation, packing)
        return Parcel(messages.FrameMessage(seq, slot, generation, self._number, packing.content, (), sent_ns))

    def free(self, message: messages.FrameMessage) -> None:
        """Free the slot of a frame, and remove its table if it is an old one without frames. Raises WireError."""
        if message.table not in self._tables:
            raise WireError(f"there is no slot table {message.table}")
        self._tables[message.table][1].free(message)
        self._retire(message.table)

    def close(self) -> None:
        """Remove every table."""
        for number in list(self._tables):
            self._remove(number)

    def _grow(self, nbytes: int) -> None:
        old, self._number = self._number, self._number + 1
        table, self.agreed = self._make(self._number, nbytes)
        self._tables[self._number] = table, SlotTable(self._slots)
        self._retire(old)

    def _retire(self, number: int) -> None:
        if number != self._number and number in self._tables and not self._tables[number][1].in_use:
            self._remove(number)

    def _remove(self, number: int) -> None:
        table, _ = self._tables.pop(number)
        self._copies += table.copies
        self._copied_bytes += table.copied_bytes
        table.close()


class SharedAccess:
    """The reader's side (`slots.Access`). Frames are views of the sender's slots.

    open_table  opens the table that a Welcome describes; raises WireError for one that cannot be opened
    """

    def __init__(self, transport: Transport, slots: int, open_table: Callable[[messages.Welcome], Table]) -> None:
        self.transport = transport
        self._open_table = open_table
        self._slots = slots
        self._tables: dict[int, Table] = {}

    def agree(self, welcome: messages.Welcome) -> None:
        """Open the table, unless the sender has none yet. Raises WireError for one of another size or an old number."""
        if welcome.slots != self._slots:
            raise WireError(f"the sender has {welcome.slots} slots, agreed were {self._slots}")
        if welcome.table == 0:
            return
        if welcome.table <= max(self._tables, default=0):
            raise WireError(f"slot table {welcome.table} was agreed before")
        self._tables[welcome.table] = self._open_table(welcome)

    def admit(self, message: messages.FrameMessage, parts: Sequence[Any]) -> None:
        """Check table, slot, generation and planes of an announced frame. Raises WireError."""
        if parts:
            raise WireError("planes of a frame whose memory is shared come in its slot, not behind the message")
        table = self._table(message)
        if not 0 <= message.slot < table.slots:
            raise WireError(f"slot {message.slot} of a table of {table.slots}")
        tensor_layout.check(message.content, table.slot_bytes)
        table.check(message.slot, message.generation)

    def open(self, message: messages.FrameMessage, parts: Sequence[Any]) -> Any:
        """The frame, over the slot's memory. Raises WireError when the slot was filled again."""
        for number in [number for number in self._tables if number < message.table]:
            self._tables.pop(number).close()  # frames arrive in order, so no frame of an older table follows
        table = self._table(message)
        table.before(message.slot, message.generation)
        assert message.content is not None
        return tensor_layout.unpack(message, table.views(message.slot, message.content.planes))

    def done(self, message: messages.FrameMessage) -> None:
        """Raise WireError when the slot was filled again while it was read."""
        self._table(message).after(message.slot, message.generation)

    def close(self) -> None:
        """Close every table; its memory stays mapped until the last view is gone."""
        for table in self._tables.values():
            table.close()
        self._tables.clear()

    def _table(self, message: messages.FrameMessage) -> Table:
        table = self._tables.get(message.table)
        if table is None:
            raise WireError(f"slot table {message.table} was never agreed")
        return table


class Views:
    """A cache of tensors over slots. Frames of a link mostly have one shape, so each view is made once."""

    def __init__(self, slots: int, view: Callable[[int, messages.Plane], Tensor]) -> None:
        self._most = 8 * slots
        self._view = view
        self._found: dict[tuple[int, tuple[messages.Plane, ...]], tuple[Tensor, ...]] = {}

    def __call__(self, slot: int, wanted: tuple[messages.Plane, ...]) -> tuple[Tensor, ...]:
        """Tensors over a slot, one for each plane."""
        found = self._found.get((slot, wanted))
        if found is None:
            if len(self._found) >= self._most:
                self._found.clear()  # bounds the cache when the shape changes all the time
            found = self._found[slot, wanted] = tuple(self._view(slot, plane) for plane in wanted)
        return found

    def clear(self) -> None:
        """Drop every view."""
        self._found.clear()
