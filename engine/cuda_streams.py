"""CUDA streams of lanes, the hand-over of tensors between them, and copies by pinned host memory. On a CPU all of it
does nothing.

While frames are processed, no host thread synchronises a stream. A reader waits for the writer on the device, by an
event.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.device import Event, is_card


@dataclass(frozen=True, slots=True)
class NoStream:
    """Stands for a stream on a device that runs everything in the order of the calls."""


Stream = card.Stream | NoStream


def new_stream(device: str) -> Stream:
    """A new stream on `device`, for one lane; `NoStream` on a CPU."""
    return card.new_stream(device) if is_card(device) else NoStream()


def current_stream(device: str) -> Stream:
    """The current stream of this thread; `NoStream` on a CPU."""
    return card.current(device) if is_card(device) else NoStream()


@contextmanager
def on(stream: Stream) -> Iterator[None]:
    """Make `stream` the current stream of this thread within the block. Engines called within it run on it."""
    if isinstance(stream, NoStream):
        yield
        return
    with card.issuing_to(stream):
        yield


def wrote(device: str | torch.device) -> Event | None:
    """An event after all work that was issued to the current stream so far; None on a CPU.

    It is passed on with the tensors that were written, and the reader waits for it when it takes the frame. If the
    writer put the wait into the reader's stream, that would delay the reader's work on earlier frames.
    """
    return card.recorded(card.current(device)) if is_card(device) else None


def reads(tensors: Iterable[Tensor], event: Event | None, by: Stream) -> None:
    """Prepare the stream `by` for reading tensors that were written before `event`.

    Without the event `by` may read them before they are written. Without record_stream the allocator may reuse the
    memory while `by` still reads it, as soon as the last reference is gone: it knows only the stream on which a tensor
    was allocated.
    """
    if event is None or isinstance(by, NoStream):
        return
    by.wait_event(event)
    for tensor in tensors:
        if tensor.is_cuda:
            tensor.record_stream(by)


class DeviceClock:
    """Durations of pieces of work on one stream, reported when the work is done. No thread waits for them."""

    def __init__(self, stream: card.Stream) -> None:
        self._stream = stream
        self._spans: deque[tuple[Event, Event]] = deque()
        self._begun: Event | None = None

    def begin(self) -> None:
        """Mark the start of a piece of work."""
        self._begun = card.recorded(self._stream, timing=True)

    def end(self) -> None:
        """Mark the end of a piece of work."""
        assert self._begun is not None
        self._spans.append((self._begun, card.recorded(self._stream, timing=True)))

    def over(self) -> Iterator[int]:
        """Yield the nanoseconds of each piece of work that is done and was not yielded before, in their order."""
        while self._spans and self._spans[0][1].query():  # type: ignore[no-untyped-call]
            begun, ended = self._spans.popleft()
            yield int(begun.elapsed_time(ended) * 1e6)


class UploadRing:
    """Pinned host buffers of one shape, used in turn, from which pictures are copied to the device without waiting.

    Before a buffer is filled again, the thread waits for the event of its last copy. With two or more slots that is
    normally done long before. On a CPU `upload` copies as well, so the caller may reuse the host memory in any case.
    The memory on the device is the caller's.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, slots: int = 2) -> None:
        self._device = torch.device(device)
        self._cuda = is_card(device)
        self._host = [torch.empty(shape, dtype=dtype, pin_memory=self._cuda) for _ in range(slots)]
        self._copied: list[Event | None] = [None] * slots
        self._next = 0

    def upload(self, x: Tensor) -> Tensor:
        """Copy x from the host to the device, on the current stream."""
        slot, self._next = self._next, (self._next + 1) % len(self._host)
        host, event = self._host[slot], self._copied[slot]
        if event is not None:
            event.synchronize()
        host.copy_(x)
        out = torch.empty_like(host, device=self._device, pin_memory=False).copy_(host, non_blocking=True)
        self._copied[slot] = card.recorded(card.current(self._device)) if self._cuda else None
        return out


@dataclass(frozen=True, slots=True)
class Landing:
    """A copy to the host that is under way. `wait()` returns the host tensor when it is done."""

    host: Tensor
    done: Event | None

    def wait(self) -> Tensor:
        """Block this thread, not the device, until the copy is done."""
        if self.done is not None:
            self.done.synchronize()
        return self.host


class DownloadRing:
    """Pinned host buffers of one shape, used in turn, into which the device copies without a wait."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, slots: int = 2) -> None:
        self._host = [torch.empty(shape, dtype=dtype, pin_memory=is_card(device)) for _ in range(slots)]
        self._next = 0

    def download(self, x: Tensor) -> Landing:
        """Start a copy of x to the host, on the current stream. The buffer is reused `slots` calls later."""
        slot, self._next = self._next, (self._next + 1) % len(self._host)
        host = self._host[slot].copy_(x, non_blocking=True)
        done = card.recorded(card.current(x.device)) if x.is_cuda else None
        return Landing(host, done)


class ToDevice:
    """Copies host tensors to `device`: to a card by pinned memory, without waiting; on a CPU they are returned as is.

    On a card the result is written on the current stream and owned by the caller.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = str(device)
        self._cuda = is_card(device)
        self._ring: UploadRing | None = None
        self._last: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x on the device. A shape or dtype other than the last one's allocates new pinned memory."""
        if not self._cuda:
            return x
        if self._ring is None or self._last != (x.shape, x.dtype):
            self._ring, self._last = UploadRing(tuple(x.shape), x.dtype, self._device), (x.shape, x.dtype)
        return self._ring.upload(x)

    def together(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Several tensors of one dtype on the device, by one copy. On a card they are parts of one memory."""
        if not self._cuda:
            return list(parts)
        there, sizes = self(torch.cat([x.reshape(-1) for x in parts])), [x.numel() for x in parts]
        return [one.view(x.shape) for one, x in zip(torch.split(there, sizes), parts, strict=True)]

    def close(self) -> None:
        """Free the pinned memory."""
        self._ring = None


class ToHost:
    """Copies tensors of `device` to the host. The calling thread waits for its own copy only, and the device for none.

    On a CPU the array shares the tensor's memory, else it is owned by the caller.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = str(device)
        self._cuda = is_card(device)
        self._ring: DownloadRing | None = None
        self._last: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, x: Tensor) -> npt.NDArray[np.uint8]:
        """uint8 x as an array. A shape or dtype other than the last one's allocates new pinned memory."""
        if not self._cuda:
            return np.asarray(x.numpy())
        if self._ring is None or self._last != (x.shape, x.dtype):
            self._ring, self._last = DownloadRing(tuple(x.shape), x.dtype, self._device), (x.shape, x.dtype)
        return self._ring.download(x).wait().numpy().copy()

    def close(self) -> None:
        """Free the pinned memory."""
        self._ring = None
