"""The one place that names `torch.cuda` and the CUDA runtime: streams, events, captures, memory shared by processes.

Everything else in the package asks here, so that a simulated card can stand in for a real one: `cuda` and `runtime` are
looked up at every call, and the tests put theirs in the place of both (`tests/support/card`).

Note: one at a time. A wait for the whole device breaks a capture that another thread has begun, whatever the mode of
the capture (CUDA error 900). So does freeing memory outside of torch's allocator, which waits too. All of them hold the
lock of `alone`. None is on the path of a frame.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeAlias

import torch

from warpfuse.engine.errors import BackendMissing

Stream: TypeAlias = torch.cuda.Stream
Event: TypeAlias = torch.cuda.Event
Graph: TypeAlias = torch.cuda.CUDAGraph

cuda: Any = torch.cuda

_alone = threading.RLock()
_NON_BLOCKING = 1  # cudaStreamNonBlocking: no order with the default stream
_idle: dict[int, list[int]] = {}  # handles of streams whose owner is gone, by the index of their device
_idle_lock = threading.Lock()


def runtime() -> Any:
    """cuda-bindings' module of the CUDA runtime. Raises ImportError."""
    from cuda.bindings import runtime as bindings

    return bindings


def is_card(device: str | torch.device) -> bool:
    """Whether the device is an NVIDIA card."""
    return torch.device(device).type == "cuda"


def count() -> int:
    """Cards that torch can use; 0 with a build for CPUs. Makes no context."""
    return int(cuda.device_count())


def index_of(device: str | torch.device) -> int:
    """The number of a card; of "cuda" that of the current one."""
    index = torch.device(device).index
    return int(cuda.current_device()) if index is None else index


def name_of(device: str | torch.device) -> str:
    """The model of a card."""
    return str(cuda.get_device_name(device))


def uuid_of(device: str | torch.device) -> str:
    """What the driver tells a card from others by."""
    return f"GPU-{cuda.get_device_properties(device).uuid}"


def capability_of(device: str | torch.device) -> tuple[int, int]:
    """Compute capability, as (8, 9)."""
    major, minor = cuda.get_device_capability(device)
    return major, minor


def memory_of(device: str | torch.device) -> tuple[int, int]:
    """(free, all) bytes of a card."""
    free, total = cuda.mem_get_info(device)
    return free, total


def selected(device: str | torch.device) -> AbstractContextManager[object]:
    """Inside the block calls that name no card are about this one."""
    chosen: AbstractContextManager[object] = cuda.device(device)
    return chosen


def new_stream(device: str | torch.device) -> Stream:
    """A stream that nobody else has, as long as the object lives. Raises BackendMissing.

    Torch's own come from 32 that it deals round, so that the 33rd is the first. This one goes to the next who asks when
    its owner is gone: it is never destroyed, since the allocator may still have to record an event on it.
    """
    index = index_of(device)
    with _idle_lock:
        idle = _idle.setdefault(index, [])
        handle = idle.pop() if idle else None
    if handle is None:
        handle = _make_stream(index)
    stream: Stream = cuda.ExternalStream(handle, device=torch.device("cuda", index))
    weakref.finalize(stream, idle.append, handle)
    return stream


def current(device: str | torch.device) -> Stream:
    """The stream this thread issues work to."""
    stream: Stream = cuda.current_stream(device)
    return stream


def issuing_to(stream: Stream) -> AbstractContextManager[object]:
    """Inside the block this thread issues its work to `stream`."""
    block: AbstractContextManager[object] = cuda.stream(stream)
    return block


def event(*, timing: bool = False, interprocess: bool = False) -> Event:
    """A new event, not recorded. A thread that waits for it sleeps, unless its time is to be told."""
    made: Event = cuda.Event(enable_timing=timing, blocking=not timing, interprocess=interprocess)
    return made


def recorded(stream: Stream, *, timing: bool = False) -> Event:
    """An event behind all that `stream` was given until now."""
    made = event(timing=timing)
    made.record(stream)
    return made


def record_again(event: Event, stream: Stream) -> None:
    """From now on the event is behind all that `stream` was given until now."""
    event.record(stream)


def imported_event(device: str | torch.device, handle: bytes) -> Event:
    """An event of another process, from its handle of 64 bytes. Raises RuntimeError."""
    opened: Event = cuda.Event.from_ipc_handle(torch.device("cuda", index_of(device)), handle)
    return opened


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block no other thread captures, or waits for a whole device (Note: one at a time)."""
    with _alone:
        yield


def settle(device: str | torch.device) -> None:
    """Wait for all work on a card; on a CPU there is nothing to wait for. Never on a frame's path."""
    if is_card(device):
        with alone():
            cuda.synchronize(device)


def captured(stream: Stream, launch: Callable[[], None], after: Graph | None = None) -> Graph:
    """What `launch` issues to `stream`, as a graph. Other threads go on allocating and launching meanwhile.

    after  a graph that always runs before this one, never beside it: both use the same memory in between
    Not `torch.cuda.graph`, which waits for the whole device and empties the allocator's cache.
    """
    graph: Graph = cuda.CUDAGraph()
    with alone(), issuing_to(stream):
        # thread_local: what other threads do is no part of it
        graph.capture_begin(pool=None if after is None else after.pool(), capture_error_mode="thread_local")
        try:
            launch()
        except BaseException:
            with suppress(RuntimeError):  # it is broken; the first reason is the one to tell
                graph.capture_end()
            raise
        graph.capture_end()
    return graph


def marked(name: str) -> AbstractContextManager[object]:
    """A span with a name, for NVIDIA's profiler."""
    span: AbstractContextManager[object] = cuda.nvtx.range(name)
    return span


def _make_stream(index: int) -> int:
    try:
        bindings = runtime()
    except ImportError as error:
        raise BackendMissing(f"cuda-bindings cannot be loaded ({error}): pip install 'warpfuse[cuda]'") from None
    with selected(torch.device("cuda", index)):
        status, handle = bindings.cudaStreamCreateWithFlags(_NON_BLOCKING)
    if int(status) != 0:
        raise BackendMissing(f"cuda:{index} gives no stream ({status.name}): check nvidia-smi")
    return int(handle)
