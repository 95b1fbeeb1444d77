"""Slots in memory that two processes share: the sender copies a picture once, the reader reads it where it lies.

What the memory is, a file or a card's, is the table's business (`shared_memory.py`, `cuda_ipc.py`).

A table is made when the first frame comes, for frames of that size. A larger one needs a larger table (the first frame
of a feedback, say, is empty): it gets the next number, and the old one goes when its last slot is back.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.graph.links.link_plan import Transport
from warpfuse.graph.links.slots import Parcel, SlotTable


class Table(Protocol):
    """Memory of a number of slots, as the sender has made it or as the reader has opened it."""

    slots: int
    slot_bytes: int
    copies: int  # planes copied into slots until now: tests hold a link to one copy a picture
    copied_bytes: int

    def write(self, slot: int, generation: int, packing: tensor_layout.Packing) -> None:
        """The sender: copy the planes into a slot."""

    def views(self, slot: int, wanted: tuple[messages.Plane, ...]) -> tuple[Tensor, ...]:
        """The reader: planes of a slot where they lie. They fit: checked before."""

    def check(self, slot: int, generation: int) -> None:
        """The reader, when a frame is announced. Raises WireError when the slot is known to hold something else."""

    def before(self, slot: int, generation: int) -> None:
        """The reader begins to read. Raises WireError when the slot holds something else."""

    def after(self, slot: int, generation: int) -> None:
        """The reader has read. Raises WireError when the slot was filled again meanwhile."""

    def close(self) -> None:
        """Let the memory go; the sender removes it."""


class SharedSlots:
    """The sender's side (`slots.Store`).

    make  (number, slot_bytes) -> a new table and what the reader needs to open it
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
        """Slots filled and not yet released, of every table."""
        return sum(slots.in_use for _, slots in self._tables.values())

    @property
    def copies(self) -> int:
        """Planes copied into slots until now."""
        return self._copies + sum(table.copies for table, _ in self._tables.values())

    @property
    def copied_bytes(self) -> int:
        """Their bytes."""
        return self._copied_bytes + sum(table.copied_bytes for table, _ in self._tables.values())

    def fill(self, seq: int, value: Any, sent_ns: int = 0) -> Parcel:
        """Copy a RawFrame or Frame into a free slot. Raises SharedMemoryFull when a new table cannot be had."""
        packing = tensor_layout.pack(value)
        if self._number not in self._tables or packing.nbytes > self._tables[self._number][0].slot_bytes:
            self._grow(packing.nbytes)
        table, slots = self._tables[self._number]
        slot, generation = slots.put(None)
        table.write(slot, generation, packing)
        return Parcel(messages.FrameMessage(seq, slot, generation, self._number, packing.content, (), sent_ns))

    def free(self, message: messages.FrameMessage) -> None:
        """The slot may be filled again; an old table goes with its last one."""
        if message.table not in self._tables:
            raise WireError(f"there is no slot table {message.table}")
        self._tables[message.table][1].release(message.slot, message.generation)
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
    """The reader's side (`slots.Access`): values are views of the sender's slots.

    open  a table from what its sender tells of it; raises WireError for what cannot be one
    """

    def __init__(self, transport: Transport, slots: int, open_table: Callable[[messages.Welcome], Table]) -> None:
        self.transport = transport
        self._open_table = open_table
        self._slots = slots
        self._tables: dict[int, Table] = {}

    def agree(self, welcome: messages.Welcome) -> None:
        """Map the table."""
        if welcome.slots != self._slots:
            raise WireError(f"the sender has {welcome.slots} slots, agreed were {self._slots}")
        if welcome.table == 0:
            return
        if welcome.table <= max(self._tables, default=0):
            raise WireError(f"slot table {welcome.table} was agreed before")
        self._tables[welcome.table] = self._open_table(welcome)

    def admit(self, message: messages.FrameMessage, parts: Sequence[Any]) -> None:
        """Table, slot, generation and planes fit."""
        if parts:
            raise WireError("planes of a frame whose memory is shared come in its slot, not behind the message")
        table = self._table(message)
        if not 0 <= message.slot < table.slots:
            raise WireError(f"slot {message.slot} of a table of {table.slots}")
        tensor_layout.check(message.content, table.slot_bytes)
        table.check(message.slot, message.generation)

    def open(self, message: messages.FrameMessage, parts: Sequence[Any]) -> Any:
        """Views of the slot."""
        for number in [number for number in self._tables if number < message.table]:
            self._tables.pop(number).close()  # frames come in order: nothing of an older table follows
        table = self._table(message)
        table.before(message.slot, message.generation)
        assert message.content is not None
        return tensor_layout.unpack(message, table.views(message.slot, message.content.planes))

    def done(self, message: messages.FrameMessage) -> None:
        """The slot was not filled again meanwhile."""
        self._table(message).after(message.slot, message.generation)

    def close(self) -> None:
        """Unmap, as soon as the last view is gone."""
        for table in self._tables.values():
            table.close()
        self._tables.clear()

    def _table(self, message: messages.FrameMessage) -> Table:
        table = self._tables.get(message.table)
        if table is None:
            raise WireError(f"slot table {message.table} was never agreed")
        return table


class Views:
    """Planes of slots, looked up instead of made anew: frames of a link are mostly of one shape."""

    def __init__(self, slots: int, view: Callable[[int, messages.Plane], Tensor]) -> None:
        self._most = 8 * slots
        self._view = view
        self._found: dict[tuple[int, tuple[messages.Plane, ...]], tuple[Tensor, ...]] = {}

    def __call__(self, slot: int, wanted: tuple[messages.Plane, ...]) -> tuple[Tensor, ...]:
        """The planes of a slot."""
        found = self._found.get((slot, wanted))
        if found is None:
            if len(self._found) >= self._most:
                self._found.clear()  # frames that change shape all the time
            found = self._found[slot, wanted] = tuple(self._view(slot, plane) for plane in wanted)
        return found

    def clear(self) -> None:
        """Let go of every view."""
        self._found.clear()
