"""Slots on a card, shared by two processes: CUDA IPC.

The sender allocates one pool a link, outside of torch's allocator, and exports it once. A frame's message then holds
only a slot number. Neither host thread waits for the card; the CUDA streams do:

    sender   stream waits for free[k], copies into slot k, records ready[k], then sends FRAME
    reader   stream waits for ready[k], reads, records free[k], then sends CREDIT

Each message is sent after its event is recorded, so the other side never waits for an earlier recording of the event.
torch's own sharing of tensors is not used: it counts references in files, pickles, and leaks when a reader is killed.

Closed pools: CUDA leaves it undefined to free a pool, or to destroy its events, while the reader still has them open.
A credit of a later pool of the link proves that the reader has closed them. The memory is then freed when the next pool
is made or closed, because cudaFree waits for the whole device, which nothing on the path of a frame may do.
"""

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.device import Event
from warpfuse.graph.errors import TransportMissing, WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.graph.links.shared_slots import SharedAccess, SharedSlots, Table, Views
from warpfuse.graph.links.tensor_layout import ALIGNMENT, Packing
from warpfuse.stages.borrowed import mark_borrowed, unmark_borrowed

_PAGE = 4096
_BLOCK = 2 << 20
"""A pool takes a multiple of this many bytes. CUDA exports blocks of this size: two pools must not share one."""

_HANDLE = 64  # bytes of an IPC handle, of memory and of events alike


class _Closed(NamedTuple):
    """Memory and events of a closed pool of this process, not yet freed."""

    memory: int
    events: tuple[Event, ...]


_closed: dict[str, list[_Closed]] = {}  # by link: its reader may still have them open
_let_go: list[_Closed] = []  # no reader has these open any more


def missing(device: str) -> str | None:
    """Why CUDA IPC does not work on this device, in words; None where it works."""
    if not card.is_card(device):
        return f"{device} is no card"
    if not card.count():
        return "no CUDA device was found"
    try:
        cudart = card.runtime()
        attribute = cudart.cudaDeviceAttr.cudaDevAttrIpcEventSupport
        supported = _done(cudart.cudaDeviceGetAttribute(attribute, card.index_of(device)))
    except ImportError:
        return "the Python package cuda-bindings is not installed (pip install cuda-bindings)"
    except TransportMissing as error:  # the bindings may ask for a newer driver than torch does
        return f"cuda-bindings cannot use {device} ({error})"
    return None if supported else f"{device} has no interprocess events"


def slots_on_card(name: str, slots: int, device: str) -> SharedSlots:
    """The sender's slots of a link, on a card. Raises TransportMissing."""
    _require(device)

    def make(number: int, nbytes: int) -> tuple[Table, messages.Welcome]:
        pool = _Pool.create(name, slots, max(_PAGE, -(-nbytes // _PAGE) * _PAGE), device)
        return pool, messages.Welcome(slots, number, pool.slot_bytes, handles=pool.handles)

    return SharedSlots("cuda-ipc", slots, make)


def access_on_card(slots: int, device: str) -> SharedAccess:
    """The reader's access to slots on a card. Raises TransportMissing."""
    _require(device)
    return SharedAccess("cuda-ipc", slots, lambda welcome: _Pool.open(welcome, device))


class _Pool:
    """One allocation on a card and two events a slot (`shared_slots.Table`). Made by `create` or `open`.

    Every method works on the CUDA stream that is current when it is called.
    """

    def __init__(
        self,
        name: str | None,
        memory: int,
        slots: int,
        slot_bytes: int,
        device: str,
        ready: list[Event],
        free: list[Event],
    ) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self.copies = 0
        self.copied_bytes = 0
        self.handles: tuple[bytes, ...] = ()
        self.views = Views(slots, self._view)
        self._name = name  # the link's name in the owner, None in the reader
        self._device = device
        self._memory = memory
        self._bytes = torch.as_tensor(_Memory(memory, slots * slot_bytes), device=device)
        self._ready, self._free = ready, free

    @classmethod
    def create(cls, name: str, slots: int, slot_bytes: int, device: str) -> "_Pool":
        """Allocate a pool and export it. Raises TransportMissing when CUDA reports an error."""
        cudart = card.runtime()
        _free_let_go()
        with card.selected(device):
            memory = int(_done(cudart.cudaMalloc(-(-slots * slot_bytes // _BLOCK) * _BLOCK)))
            exported = _done(cudart.cudaIpcGetMemHandle(memory))
            ready, free = ([card.event(interprocess=True) for _ in range(slots)] for _ in range(2))
            pool = cls(name, memory, slots, slot_bytes, device, ready, free)
            pool.handles = (handle_bytes(exported), *(bytes(event.ipc_handle()) for event in (*ready, *free)))  # type: ignore[no-untyped-call]
        return pool

    @classmethod
    def open(cls, welcome: messages.Welcome, device: str) -> "_Pool":
        """Open a pool that another process exported. Raises WireError for handles that cannot be opened."""
        slots, handles = welcome.slots, welcome.handles
        if len(handles) != 1 + 2 * slots or any(len(handle) != _HANDLE for handle in handles):
            raise WireError(
                f"{len(handles)} CUDA handles for {slots} slots, expected {1 + 2 * slots} of {_HANDLE} bytes"
            )
        cudart = card.runtime()
        exported = handle_of(cudart, handles[0])
        with card.selected(device):
            try:
                memory = int(_done(cudart.cudaIpcOpenMemHandle(exported, cudart.cudaIpcMemLazyEnablePeerAccess)))
                events = [card.imported_event(device, handle) for handle in handles[1:]]
            except (TransportMissing, RuntimeError) as error:
                raise WireError(f"the sender's memory on {device} cannot be opened: {error}") from None
        mark_borrowed(memory, slots * welcome.slot_bytes)
        return cls(None, memory, slots, welcome.slot_bytes, device, events[:slots], events[slots:])

    def write(self, slot: int, generation: int, packing: Packing) -> None:
        """Copy the planes into a slot, on the current stream."""
        stream = card.current(self._device)
        if generation > 1 and self._name in _closed:  # this slot was returned, so the reader has opened this pool
            _let_go.extend(_closed.pop(self._name))
        stream.wait_event(self._free[slot])
        for into, tensor in zip(self.views(slot, packing.content.planes), packing.tensors, strict=True):
            into.copy_(tensor, non_blocking=True)
            self.copies += 1
            self.copied_bytes += tensor.nbytes
        card.record_again(self._ready[slot], stream)

    def check(self, slot: int, generation: int) -> None:
        """No check here: it would wait for the card. The owner checks the generation when the slot is returned."""

    def before(self, slot: int, generation: int) -> None:
        """Make the current stream wait until the slot is written."""
        card.current(self._device).wait_event(self._ready[slot])

    def after(self, slot: int, generation: int) -> None:
        """Mark the slot free once the current stream has done the work queued on it until now."""
        card.record_again(self._free[slot], card.current(self._device))

    def close(self) -> None:
        """The reader unmaps the pool. The owner's pool is freed later, when its reader has unmapped it (`_closed`)."""
        self.views.clear()
        if self._name is not None:
            _closed.setdefault(self._name, []).append(_Closed(self._memory, (*self._ready, *self._free)))
            _free_let_go()
            return
        unmark_borrowed(self._memory, self.slots * self.slot_bytes)
        with card.selected(self._device), card.alone():
            card.settle(self._device)  # links are closed when no frame is on its way
            _done(card.runtime().cudaIpcCloseMemHandle(self._memory))

    def _view(self, slot: int, plane: messages.Plane) -> Tensor:
        start = slot * self.slot_bytes + plane.offset
        flat = self._bytes[start : start + tensor_layout.nbytes_of(plane)].view(tensor_layout.dtype_of(plane))
        return tensor_layout.laid_out(flat, plane)


class _Memory:
    """Bytes on a card with `__cuda_array_interface__`, from which torch makes a tensor without a copy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (address, False), "strides": None, "version": 3,
        }  # fmt: skip


def handle_bytes(handle: Any) -> bytes:
    """The bytes of a `cudaIpcMemHandle_t`, read at its address: the field's name changed in cuda-bindings 13.4."""
    return ctypes.string_at(handle.getPtr(), _HANDLE)


def handle_of(cudart: Any, data: bytes) -> Any:
    """The `cudaIpcMemHandle_t` with these bytes."""
    handle = cudart.cudaIpcMemHandle_t()
    ctypes.memmove(handle.getPtr(), data, _HANDLE)
    return handle


def _free_let_go() -> None:
    while _let_go:
        with card.alone():
            _done(card.runtime().cudaFree(_let_go.pop().memory))


def _done(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA runtime call. Raises TransportMissing with CUDA's error name when the call failed."""
    error, *values = result
    if int(error) != 0:
        raise TransportMissing(f"CUDA: {error.name}")
    return values[0] if values else None


def _require(device: str) -> None:
    reason = missing(device)
    if reason is not None:
        raise TransportMissing(f"transport cuda-ipc: {reason}. Use shm")


assert _PAGE % ALIGNMENT == 0  # slots begin at multiples of a page: planes stay aligned
