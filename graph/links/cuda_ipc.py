"""Slots on a card, shared by two processes: CUDA IPC.

One pool for a link is allocated once, outside of torch's allocator, and exported once; per frame only a slot number
crosses. Nobody waits on the host:

    sender   stream waits for free[k], copies into slot k, records ready[k], then sends FRAME
    reader   stream waits for ready[k], reads, records free[k], then sends CREDIT

The message follows the record, so an event that is recorded again is never mistaken for its last time. torch's own
sharing of tensors is not used: it counts references in files, pickles, and leaks when a reader is killed.
"""

from typing import Any

import torch
from torch import Tensor

from warpfuse.graph.errors import TransportMissing, WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.graph.links.shared_slots import SharedAccess, SharedSlots, Table, Views
from warpfuse.graph.links.tensor_layout import ALIGNMENT, Packing
from warpfuse.stages.borrowed import mark_borrowed, unmark_borrowed

_PAGE = 4096

# Pools of links of this process that were closed, by link. A pool must not be freed while its reader still has it open
# (undefined by CUDA); a credit of the link's next epoch proves that it has not.
_closed: dict[str, list[int]] = {}


def missing(device: str) -> str | None:
    """Why there is no CUDA IPC between processes on this device; None when there is."""
    if torch.device(device).type != "cuda":
        return f"{device} is no card"
    if not torch.cuda.is_available():
        return "no CUDA device was found"
    try:
        cudart = _cudart()
    except ImportError:
        return "the Python package cuda-bindings is not installed (pip install cuda-bindings)"
    attribute = cudart.cudaDeviceAttr.cudaDevAttrIpcEventSupport
    if not _done(cudart.cudaDeviceGetAttribute(attribute, _index(device))):
        return f"{device} has no interprocess events"
    return None


def slots_on_card(name: str, slots: int, device: str) -> SharedSlots:
    """The sender's side. Raises TransportMissing."""
    _require(device)

    def make(number: int, nbytes: int) -> tuple[Table, messages.Welcome]:
        pool = _Pool.create(name, slots, max(_PAGE, -(-nbytes // _PAGE) * _PAGE), device)
        return pool, messages.Welcome(slots, number, pool.slot_bytes, handles=pool.handles)

    return SharedSlots("cuda-ipc", slots, make)


def access_on_card(slots: int, device: str) -> SharedAccess:
    """The reader's side. Raises TransportMissing."""
    _require(device)
    return SharedAccess("cuda-ipc", slots, lambda welcome: _Pool.open(welcome, device))


class _Pool:
    """One allocation on a card and two events a slot (`lent_slots.Table`). Made by `create` or `open`.

    Its owner's streams and its reader's are those that are current when a method is called.
    """

    def __init__(
        self,
        name: str | None,
        memory: int,
        slots: int,
        slot_bytes: int,
        device: str,
        ready: list[torch.cuda.Event],
        free: list[torch.cuda.Event],
    ) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self.copies = 0
        self.copied_bytes = 0
        self.handles: tuple[bytes, ...] = ()
        self.views = Views(slots, self._view)
        self._name = name  # the link, of the owner; None at the reader
        self._device = device
        self._memory = memory
        self._bytes = torch.as_tensor(_Memory(memory, slots * slot_bytes), device=device)
        self._ready, self._free = ready, free

    @classmethod
    def create(cls, name: str, slots: int, slot_bytes: int, device: str) -> "_Pool":
        """Allocate and export. Raises TransportMissing when the card refuses."""
        cudart = _cudart()
        with torch.cuda.device(device):
            memory = int(_done(cudart.cudaMalloc(slots * slot_bytes)))
            exported = _done(cudart.cudaIpcGetMemHandle(memory))
            ready, free = [_event() for _ in range(slots)], [_event() for _ in range(slots)]
            pool = cls(name, memory, slots, slot_bytes, device, ready, free)
            pool.handles = (bytes(exported.reserved), *(bytes(event.ipc_handle()) for event in (*ready, *free)))  # type: ignore[no-untyped-call]
        return pool

    @classmethod
    def open(cls, welcome: messages.Welcome, device: str) -> "_Pool":
        """Open what another process exported. Raises WireError for what cannot be that."""
        slots, handles = welcome.slots, welcome.handles
        if len(handles) != 1 + 2 * slots or any(len(handle) != 64 for handle in handles):
            raise WireError(f"{len(handles)} CUDA handles for {slots} slots, expected {1 + 2 * slots} of 64 bytes")
        cudart = _cudart()
        exported = cudart.cudaIpcMemHandle_t()
        exported.reserved = handles[0]
        with torch.cuda.device(device):
            try:
                memory = int(_done(cudart.cudaIpcOpenMemHandle(exported, cudart.cudaIpcMemLazyEnablePeerAccess)))
                at = torch.device(device)
                events = [torch.cuda.Event.from_ipc_handle(at, handle) for handle in handles[1:]]  # type: ignore[no-untyped-call]
            except (TransportMissing, RuntimeError) as error:
                raise WireError(f"the sender's memory on {device} cannot be opened: {error}") from None
        mark_borrowed(memory, slots * welcome.slot_bytes)
        return cls(None, memory, slots, welcome.slot_bytes, device, events[:slots], events[slots:])

    def write(self, slot: int, generation: int, packing: Packing) -> None:
        """Copy the planes into a slot, on the current stream."""
        stream = torch.cuda.current_stream(self._device)
        if generation > 1:
            _free_closed(self._name)  # this slot came back: the link's reader is of this epoch
        stream.wait_event(self._free[slot])
        for into, tensor in zip(self.views(slot, packing.content.planes), packing.tensors, strict=True):
            into.copy_(tensor, non_blocking=True)
            self.copies += 1
            self.copied_bytes += tensor.nbytes
        self._ready[slot].record(stream)

    def check(self, slot: int, generation: int) -> None:
        """Generations are the owner's to check, when a slot comes back: to look at one here would wait for the card."""

    def before(self, slot: int, generation: int) -> None:
        """The current stream waits for what was written."""
        torch.cuda.current_stream(self._device).wait_event(self._ready[slot])

    def after(self, slot: int, generation: int) -> None:
        """What the current stream was given until now is all that reads the slot."""
        self._free[slot].record(torch.cuda.current_stream(self._device))

    def close(self) -> None:
        """The reader unmaps; the owner frees when the reader surely has."""
        self.views.clear()
        if self._name is not None:
            _closed.setdefault(self._name, []).append(self._memory)
            return
        unmark_borrowed(self._memory, self.slots * self.slot_bytes)
        with torch.cuda.device(self._device):
            torch.cuda.synchronize()  # links are closed when no frame is on its way
            _done(_cudart().cudaIpcCloseMemHandle(self._memory))

    def _view(self, slot: int, plane: messages.Plane) -> Tensor:
        start = slot * self.slot_bytes + plane.offset
        flat = self._bytes[start : start + tensor_layout.nbytes_of(plane)].view(tensor_layout.dtype_of(plane))
        return tensor_layout.laid_out(flat, plane)


class _Memory:
    """Bytes on a card, in the form torch takes without copying them."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (address, False), "strides": None, "version": 3,
        }  # fmt: skip


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(interprocess=True)  # type: ignore[no-untyped-call]
    return event


def _free_closed(name: str | None) -> None:
    for memory in _closed.pop(name, []) if name is not None else []:
        _done(_cudart().cudaFree(memory))


def _cudart() -> Any:
    from cuda.bindings import runtime

    return runtime


def _done(result: tuple[Any, ...]) -> Any:
    """What a call of the runtime gives. Raises TransportMissing with what it says when it failed."""
    error, *values = result
    if int(error) != 0:
        raise TransportMissing(f"CUDA: {error.name}")
    return values[0] if values else None


def _index(device: str) -> int:
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def _require(device: str) -> None:
    reason = missing(device)
    if reason is not None:
        raise TransportMissing(f"transport cuda-ipc: {reason}. Use shm")


assert _PAGE % ALIGNMENT == 0  # slots begin at multiples of a page: planes stay aligned
