"""The only module that uses `torch.cuda` and the CUDA runtime: streams, events, captures, memory shared by processes.

The rest of the package calls this module, so that tests can replace the card by a simulated one: `cuda`, `runtime`,
`driver` and `nvrtc` are looked up at every call, and `tests/support/card` replaces them.

Note: one at a time. Waiting for the whole device breaks a capture in another thread, whatever the mode of the capture
(CUDA error 900). So does freeing memory outside of torch's allocator, which also waits. All of these hold the lock of
`alone`. None is done while a frame is processed.
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
_idle: dict[int, list[int]] = {}  # handles of streams that are free for reuse, by the index of their device
_idle_lock = threading.Lock()


def runtime() -> Any:
    """The CUDA runtime module of cuda-bindings. Raises ImportError."""
    from cuda.bindings import runtime as bindings

    return bindings


def driver() -> Any:
    """The CUDA driver module of cuda-bindings. Raises ImportError."""
    from cuda.bindings import driver as bindings

    return bindings


def nvrtc() -> Any:
    """The runtime compiler (NVRTC) of cuda-bindings. Raises ImportError; its functions raise RuntimeError without the
    library."""
    from cuda.bindings import nvrtc as bindings

    return bindings


def is_card(device: str | torch.device) -> bool:
    """The device is an NVIDIA card."""
    return torch.device(device).type == "cuda"


def count() -> int:
    """Number of cards that torch can use; 0 for a CPU build. Creates no context."""
    return int(cuda.device_count())


def index_of(device: str | torch.device) -> int:
    """The index of a card; "cuda" is the current one."""
    index = torch.device(device).index
    return int(cuda.current_device()) if index is None else index


def name_of(device: str | torch.device) -> str:
    """Model name of a card."""
    return str(cuda.get_device_name(device))


def uuid_of(device: str | torch.device) -> str:
    """UUID of a card, as given by the driver."""
    return f"GPU-{cuda.get_device_properties(device).uuid}"


def capability_of(device: str | torch.device) -> tuple[int, int]:
    """Compute capability, such as (8, 9)."""
    major, minor = cuda.get_device_capability(device)
    return major, minor


def memory_of(device: str | torch.device) -> tuple[int, int]:
    """(free, total) memory of a card in bytes."""
    free, total = cuda.mem_get_info(device)
    return free, total


def selected(device: str | torch.device) -> AbstractContextManager[object]:
    """Make the card current within the block."""
    chosen: AbstractContextManager[object] = cuda.device(device)
    return chosen


def new_stream(device: str | torch.device) -> Stream:
    """A stream that is not shared with any other caller while the object lives. Raises BackendMissing.

    Torch's own streams come from a pool of 32 in rotation, so the 33rd is the first again. When the object is deleted,
    its stream is reused. It is never destroyed, since the allocator may still have to record an event on it.
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
    """The current stream of this thread."""
    stream: Stream = cuda.current_stream(device)
    return stream


def default_stream(device: str | torch.device) -> Stream:
    """The stream of libraries that are given none, as FFmpeg's decoder."""
    stream: Stream = cuda.default_stream(device)
    return stream


def imported(plane: Any) -> torch.Tensor:
    """Memory of another library as a tensor, by DLPack. Its owner must outlive the work that is issued on it.

    The owner is given no stream, since FFmpeg takes none: the caller orders its reads by an event.
    """
    tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(plane.__dlpack__())
    return tensor


def issuing_to(stream: Stream) -> AbstractContextManager[object]:
    """Make `stream` the current stream of this thread within the block."""
    block: AbstractContextManager[object] = cuda.stream(stream)
    return block


def event(*, timing: bool = False, interprocess: bool = False) -> Event:
    """A new event, not recorded. Threads that wait for it sleep, except with `timing`, where they spin."""
    made: Event = cuda.Event(enable_timing=timing, blocking=not timing, interprocess=interprocess)
    return made


def recorded(stream: Stream, *, timing: bool = False) -> Event:
    """An event after all work that was issued to `stream` so far."""
    made = event(timing=timing)
    made.record(stream)
    return made


def record_again(event: Event, stream: Stream) -> None:
    """Record the event again, after all work that was issued to `stream` so far."""
    event.record(stream)


def imported_event(device: str | torch.device, handle: bytes) -> Event:
    """An event of another process, from its IPC handle of 64 bytes. Raises RuntimeError."""
    opened: Event = cuda.Event.from_ipc_handle(torch.device("cuda", index_of(device)), handle)
    return opened


@contextmanager
def alone() -> Iterator[None]:
    """Within the block no other thread captures or waits for a whole device (Note: one at a time)."""
    with _alone:
        yield


def settle(device: str | torch.device) -> None:
    """Wait for all work on a card; nothing on a CPU. Not to be called while frames are processed."""
    if is_card(device):
        with alone():
            cuda.synchronize(device)


def captured(stream: Stream, launch: Callable[[], None], after: Graph | None = None) -> Graph:
    """Capture the work that `launch` issues to `stream` as a graph. Other threads may allocate and launch meanwhile.

    after  a graph that always runs before this one, never at the same time: both use the same memory pool

    `torch.cuda.graph` is not used, since it waits for the whole device and empties the allocator's cache.
    """
    graph: Graph = cuda.CUDAGraph()
    with alone(), issuing_to(stream):
        # thread_local: work of other threads is not captured
        graph.capture_begin(pool=None if after is None else after.pool(), capture_error_mode="thread_local")
        try:
            launch()
        except BaseException:
            with suppress(RuntimeError):  # the capture is broken; the first error is the one to report
                graph.capture_end()
            raise
        graph.capture_end()
    return graph


def capturing() -> bool:
    """Whether what this thread issues goes into a graph that is being captured, and does not run yet."""
    return bool(cuda.is_current_stream_capturing())


def marked(name: str) -> AbstractContextManager[object]:
    """A named span (NVTX range) for NVIDIA's profiler."""
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
