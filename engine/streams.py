"""CUDA streams: one a stage, the hand-over between two of them, and pinned host memory. On a CPU all of it does
nothing.

Nobody synchronises a stream on the path of a frame. A reader waits for its producer on the device, by an event.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoStream:
    """Stands for a stream on a device that runs everything in the order it is called."""


Stream = torch.cuda.Stream | NoStream


def new_stream(device: str) -> Stream:
    """A stream of a stage's own on `device`; `NoStream` on a CPU."""
    return cuda_stream(device) if _is_cuda(device) else NoStream()


def cuda_stream(device: str | torch.device) -> torch.cuda.Stream:
    """A new stream of a card."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def current_stream(device: str) -> Stream:
    """The stream this thread issues work to."""
    return torch.cuda.current_stream(device) if _is_cuda(device) else NoStream()


@contextmanager
def on(stream: Stream) -> Iterator[None]:
    """Issue this thread's work to `stream` inside the block. Engines called there run there."""
    if isinstance(stream, NoStream):
        yield
        return
    with torch.cuda.stream(stream):
        yield


def hand_over(x: Tensor, to: Stream) -> Tensor:
    """Let `to` read x, which the current stream has written. Returns x.

    Without the event `to` reads before x is written. Without record_stream the allocator, which knows of the stream x
    was made on alone, gives the memory to somebody else as soon as the last reference is gone, while `to` still reads
    it.
    """
    if isinstance(to, NoStream):
        return x
    to.wait_event(torch.cuda.current_stream(x.device).record_event())
    x.record_stream(to)
    return x


def hand_back(by: Stream) -> None:
    """Before a slot is filled again: the current stream waits for all that `by`, its reader, was given until now.

    record_stream guards memory that is freed, not memory that is kept and written again: the slots of an engine need
    this.
    """
    if not isinstance(by, NoStream):
        torch.cuda.current_stream(by.device).wait_stream(by)


class UploadRing:
    """Pinned host buffers of one shape, used in turn, from which pictures are copied to the device without waiting.

    A buffer is filled again only after the copy that read it is over: the event of that copy is waited for, which with
    two or more slots is over long before. On a CPU `upload` copies, so the host memory is the caller's again either
    way.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, slots: int = 2) -> None:
        self._device = torch.device(device)
        cuda = _is_cuda(device)
        self._host = [torch.empty(shape, dtype=dtype, pin_memory=cuda) for _ in range(slots)] if cuda else []
        self._out = [torch.empty(shape, dtype=dtype, device=device) for _ in range(slots)]
        self._copied: list[torch.cuda.Event | None] = [None] * slots
        self._next = 0

    def upload(self, x: Tensor) -> Tensor:
        """x, on the host, as a tensor on the device, written by the current stream; valid until `slots` calls later."""
        slot, self._next = self._next, (self._next + 1) % len(self._out)
        if not self._host:
            return self._out[slot].copy_(x)
        event = self._copied[slot]
        if event is not None:
            event.synchronize()
        self._host[slot].copy_(x)
        self._out[slot].copy_(self._host[slot], non_blocking=True)
        self._copied[slot] = torch.cuda.current_stream(self._device).record_event()
        return self._out[slot]


@dataclass(frozen=True, slots=True)
class Landing:
    """A copy to the host on its way. `wait()` returns the host tensor when it is there."""

    host: Tensor
    done: torch.cuda.Event | None

    def wait(self) -> Tensor:
        """Block this thread, not the device, until the copy is over."""
        if self.done is not None:
            self.done.synchronize()
        return self.host


class DownloadRing:
    """Pinned host buffers of one shape, used in turn, into which the device copies without anybody waiting."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, slots: int = 2) -> None:
        self._host = [torch.empty(shape, dtype=dtype, pin_memory=_is_cuda(device)) for _ in range(slots)]
        self._next = 0

    def download(self, x: Tensor) -> Landing:
        """Start copying x, written by the current stream. The buffer is used again `slots` calls later."""
        slot, self._next = self._next, (self._next + 1) % len(self._host)
        host = self._host[slot].copy_(x, non_blocking=True)
        done = torch.cuda.current_stream(x.device).record_event() if x.is_cuda else None
        return Landing(host, done)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
