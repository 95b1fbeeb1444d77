"""What stands in for `torch.cuda` and for the CUDA runtime of cuda-bindings, on the simulated card."""

import contextlib
import ctypes
import itertools
import weakref
from types import SimpleNamespace

import torch

from support.card.order import host, site
from support.card.tensors import DEVICE

DEALT = 32  # streams that torch deals round
_BLOCK = 2 << 20  # bytes that cudaMalloc has from the driver at a time


class Stream:
    """A CUDA stream. key: its actor in `Order`."""

    def __init__(self, card, handle):
        self.card, self.cuda_stream, self.device = card, handle, DEVICE
        self.key = ("stream", handle)

    def wait_event(self, event):
        if self.card.doing("wait_event"):
            event.waited_for(self.key)

    def record_event(self, event=None):
        event = event or self.card.cuda.Event()
        event.record(self)
        return event

    def wait_stream(self, other):
        self.wait_event(other.record_event())

    def synchronize(self):
        if self.card.doing("synchronize"):
            self.card.not_capturing(self.key)
            self.card.host_waits(self.key)


class Event:
    """A CUDA event: the clock of the stream that recorded it last.

    Its state is shared with events opened from its IPC handle, and has a weak reference to the event that made it.
    """

    card = None

    def __init__(self, enable_timing=False, blocking=False, interprocess=False):
        self._interprocess = interprocess
        self._state = SimpleNamespace(clock={}, owner=weakref.ref(self))

    def record(self, stream=None):
        stream = stream or self.card.current()
        if self.card.doing("record"):
            self._check()
            self._state.clock = self.card.order.clock(stream.key)
            # launched by this thread: after what it knows, though the stream was given nothing since
            for actor, number in self.card.order.clock(host()).items():
                self._state.clock[actor] = max(number, self._state.clock.get(actor, 0))

    def wait(self, stream=None):
        (stream or self.card.current()).wait_event(self)

    def waited_for(self, actor):
        self._check()
        self.card.order.join(actor, self._state.clock)

    def synchronize(self):
        if self.card.doing("synchronize"):
            self.card.waits.append(("event", *site()[:2]))
            self.waited_for(host())

    def query(self):
        """True only if this thread has waited for the recorded work: the card may be arbitrarily slow."""
        known = self.card.order.clock(host())
        return all(known.get(actor, 0) >= number for actor, number in self._state.clock.items())

    def elapsed_time(self, other):
        return 0.1

    def ipc_handle(self):
        assert self._interprocess, "the event was not made for other processes"
        return self.card.runtime.exported(self._state)

    @classmethod
    def from_ipc_handle(cls, device, handle):
        if device.index is None:
            raise RuntimeError("CUDA error: invalid device ordinal")
        event = cls(interprocess=True)
        event._state = cls.card.runtime.imported(handle)
        return event

    def _check(self):
        if self._state.owner() is None:
            self.card.order.fault("uses an event of another process that its owner has destroyed")


class CUDAGraph:
    """A captured graph: the kernels of one stream, in order. broken: an operation ended the capture."""

    card = None

    def __init__(self):
        self._work = []
        self._pool = object()

    def capture_begin(self, pool=None, capture_error_mode="global", check_input_liveness=False):
        assert capture_error_mode == "thread_local", "other threads go on allocating"
        self._pool = pool or self._pool
        self._stream = self.card.current()
        assert self._stream.key != self.card.default.key, "CUDA captures no default stream"
        self.card.captures[self._stream.key] = self
        self.card.captured += 1

    def capture_end(self):
        del self.card.captures[self._stream.key]
        if self.broken:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture (901)")

    broken = False

    def pool(self):
        return self._pool

    def add(self, *work):
        self._work.append(work)

    def replay(self):
        with self.card.replaying():
            for name, reads, writes, run, _ in self._work:
                self.card.kernel(name, reads, writes, run)
        self.card.graphs += 1
        self.card.launches += 1


class Cuda:
    """`torch.cuda`, as far as `warpfuse.engine.device` uses it."""

    def __init__(self, card):
        self._card = card
        self.Event = type("Event", (Event,), {"card": card})
        self.CUDAGraph = type("CUDAGraph", (CUDAGraph,), {"card": card})
        self.nvtx = SimpleNamespace(range=self._range)
        self._dealt = itertools.cycle(range(1, 1 + DEALT))

    def Stream(self, device=None):  # noqa: N802
        """The next of 32 streams, in turn, as torch deals them."""
        return Stream(self._card, next(self._dealt))

    def ExternalStream(self, handle, device=None):  # noqa: N802
        return Stream(self._card, handle)

    def device_count(self):
        return 1

    def is_available(self):
        return True

    def current_device(self):
        return 0

    def get_device_name(self, device=None):
        return "Simulated Card"

    def get_device_capability(self, device=None):
        return self._card.capability

    def get_device_properties(self, device=None):
        return SimpleNamespace(uuid="0" * 36)

    def mem_get_info(self, device=None):
        return 20 << 30, 24 << 30

    def device(self, device):
        return contextlib.nullcontext()

    def current_stream(self, device=None):
        return self._card.current()

    def default_stream(self, device=None):
        return self._card.default

    @contextlib.contextmanager
    def stream(self, stream):
        local, before = self._card.local, self._card.current()
        local.stream = stream
        try:
            yield
        finally:
            local.stream = before

    def is_current_stream_capturing(self):
        return self._card.current().key in self._card.captures

    def synchronize(self, device=None):
        """Wait for every stream. Breaks every capture under way, as CUDA does."""
        for graph in self._card.captures.values():
            graph.broken = True
        if self._card.captures:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing (900)")
        if self._card.doing("synchronize"):
            for stream in self._card.order.streams():
                self._card.host_waits(stream)

    @contextlib.contextmanager
    def _range(self, name):
        before, self._card.local.span = getattr(self._card.local, "span", ""), name
        try:
            yield
        finally:
            self._card.local.span = before


class Status(int):
    """A status of the CUDA runtime, by number and name."""

    def __new__(cls, number, name):
        status = super().__new__(cls, number)
        status.name = name
        return status


DONE = Status(0, "cudaSuccess")


class _Handle:
    """`cudaIpcMemHandle_t` of cuda-bindings from 13.4 on: its bytes are reached by its address alone."""

    def __init__(self):
        self._bytes = ctypes.create_string_buffer(64)

    def getPtr(self):  # noqa: N802
        return ctypes.addressof(self._bytes)


class Runtime:
    """`cuda.bindings.runtime`, as far as the package uses it. failing: by function, the status that it returns."""

    cudaIpcMemLazyEnablePeerAccess = 1  # noqa: N815
    cudaIpcMemHandle_t = _Handle  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrIpcEventSupport=125)  # noqa: N815

    def __init__(self, card):
        self._card = card
        self.failing = {}
        self._handles = itertools.count(1000)
        self._events = {}
        self._memory = {}  # address of an allocation -> (block of the driver, offset in it)
        self._room = None
        self._opened = {}  # block of the driver -> the address it is open at

    def cudaStreamCreateWithFlags(self, flags):  # noqa: N802
        assert flags == 1, "a stream that waits for the default stream"
        return DONE, next(self._handles)

    def cudaSetDevice(self, index):  # noqa: N802
        return (DONE,)

    def cudaDeviceGetAttribute(self, attribute, index):  # noqa: N802
        return self.failing.get("cudaDeviceGetAttribute", DONE), 1

    def cudaMalloc(self, nbytes):  # noqa: N802
        """Allocate memory. Small allocations share a block of the driver, as CUDA does."""
        if self._room is None or self._room[1] + nbytes > self._room[0].nbytes or nbytes % _BLOCK == 0:
            self._room = [self._card.arena.take(-(-nbytes // _BLOCK) * _BLOCK, "device", "cudaMalloc", _BLOCK), 0]
        block, offset = self._room
        self._room[1] += nbytes
        address = self._card.arena.address(block) + offset
        self._memory[address] = block, offset
        return DONE, address

    def cudaFree(self, address):  # noqa: N802
        self._card.cuda.synchronize()
        block, _ = self._memory.pop(address)
        if block.at in self._opened:
            self._card.order.fault("frees memory that another process has open")
        self._card.order.forget(block.at)
        self._card.freed += 1
        return (DONE,)

    def cudaIpcGetMemHandle(self, address):  # noqa: N802
        handle = _Handle()
        ctypes.memmove(handle.getPtr(), address.to_bytes(8, "little") + bytes(56), 64)
        return DONE, handle

    def cudaIpcOpenMemHandle(self, handle, flags):  # noqa: N802
        address = int.from_bytes(ctypes.string_at(handle.getPtr(), 8), "little")
        if address not in self._memory:
            return Status(400, "cudaErrorInvalidResourceHandle"), None
        block, offset = self._memory[address]
        if block.at in self._opened:
            return Status(208, "cudaErrorAlreadyMapped"), None
        self._opened[block.at] = self._card.arena.address(block, 1) + offset
        return DONE, self._opened[block.at]

    def cudaIpcCloseMemHandle(self, address):  # noqa: N802
        (at,) = [at for at, opened in self._opened.items() if opened == address]
        if self._card.order.under_way(at, host()):
            self._card.order.fault("unmaps memory that the card still works on")
        del self._opened[at]
        return (DONE,)

    def exported(self, state):
        number = len(self._events)
        self._events[number] = state
        return number.to_bytes(64, "little")

    def imported(self, handle):
        number = int.from_bytes(handle, "little")
        if number not in self._events:
            raise RuntimeError("CUDA error: invalid resource handle")
        return self._events[number]


def as_tensor(card, interface):
    """A uint8 tensor over the memory that a __cuda_array_interface__ describes."""
    (nbytes,), (address, _) = interface["shape"], interface["data"]
    buffer = (ctypes.c_uint8 * nbytes).from_address(address)
    return torch.frombuffer(buffer, dtype=torch.uint8)
