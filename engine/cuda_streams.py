"""CUDA streams: one a lane, the hand-over between two of them, and pinned host memory. On a CPU all of it does
nothing.

Nobody synchronises a stream on the path of a frame. A reader waits for its producer on the device, by an event.
"""

from collections import deque
from collections.abc import Iterable, Iterator
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
    """Stands for a stream on a device that runs everything in the order it is called."""


Stream = card.Stream | NoStream


def new_stream(device: str) -> Stream:
    """A stream of a lane's own on `device`; `NoStream` on a CPU."""
    return card.new_stream(device) if is_card(device) else NoStream()


def current_stream(device: str) -> Stream:
    """The stream this thread issues work to."""
    return card.current(device) if is_card(device) else NoStream()


@contextmanager
def on(stream: Stream) -> Iterator[None]:
    """Issue this thread's work to `stream` inside the block. Engines called there run there."""
    if isinstance(stream, NoStream):
        yield
        return
    with card.issuing_to(stream):
        yield


def wrote(device: str | torch.device) -> Event | None:
    """An event behind all that the current stream was given until now; None on a CPU.

    It travels with what was written, and the reader waits for it when it takes the frame: a wait that the writer put
    into the reader's stream would stand in front of the work of earlier frames.
    """
    return card.recorded(card.current(device)) if is_card(device) else None


def reads(tensors: Iterable[Tensor], event: Event | None, by: Stream) -> None:
    """Before `by` reads tensors that were written before `event`.

    Without the event `by` reads before they are written. Without record_stream the allocator, which knows of the stream
    a tensor was made on alone, gives the memory to somebody else as soon as the last reference is gone, while `by`
    still reads it.
    """
    if event is None or isinstance(by, NoStream):
        return
    by.wait_event(event)
    for tensor in tensors:
        if tensor.is_cuda:
            tensor.record_stream(by)


class DeviceClock:
    """Durations of work on one stream, told when they are over: nobody waits for them."""

    def __init__(self, stream: card.Stream) -> None:
        self._stream = stream
        self._spans: deque[tuple[Event, Event]] = deque()
        self._begun: Event | None = None

    def begin(self) -> None:
        """The work starts here."""
        self._begun = card.recorded(self._stream, timing=True)

    def end(self) -> None:
        """It ends here."""
        assert self._begun is not None
        self._spans.append((self._begun, card.recorded(self._stream, timing=True)))

    def over(self) -> Iterator[int]:
        """Nanoseconds of each piece of work that is over and was not told before, in their order."""
        while self._spans and self._spans[0][1].query():  # type: ignore[no-untyped-call]
            begun, ended = self._spans.popleft()
            yield int(begun.elapsed_time(ended) * 1e6)


class UploadRing:
    """Pinned host buffers of one shape, used in turn, from which pictures are copied to the device without waiting.

    A buffer is filled again only after the copy that read it is over: the event of that copy is waited for, which with
    two or more slots is over long before. On a CPU `upload` copies, so the host memory is the caller's again either
    way.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, slots: int = 2) -> None:
        self._device = torch.device(device)
        cuda = is_card(device)
        self._host = [torch.empty(shape, dtype=dtype, pin_memory=cuda) for _ in range(slots)] if cuda else []
        self._out = [torch.empty(shape, dtype=dtype, device=device) for _ in range(slots)]
        self._copied: list[Event | None] = [None] * slots
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
        self._copied[slot] = card.recorded(card.current(self._device))
        return self._out[slot]


@dataclass(frozen=True, slots=True)
class Landing:
    """A copy to the host on its way. `wait()` returns the host tensor when it is there."""

    host: Tensor
    done: Event | None

    def wait(self) -> Tensor:
        """Block this thread, not the device, until the copy is over."""
        if self.done is not None:
            self.done.synchronize()
        return self.host


class DownloadRing:
    """Pinned host buffers of one shape, used in turn, into which the device copies without anybody waiting."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, slots: int = 2) -> None:
        self._host = [torch.empty(shape, dtype=dtype, pin_memory=is_card(device)) for _ in range(slots)]
        self._next = 0

    def download(self, x: Tensor) -> Landing:
        """Start copying x, written by the current stream. The buffer is used again `slots` calls later."""
        slot, self._next = self._next, (self._next + 1) % len(self._host)
        host = self._host[slot].copy_(x, non_blocking=True)
        done = card.recorded(card.current(x.device)) if x.is_cuda else None
        return Landing(host, done)


class ToDevice:
    """Host tensors onto `device`: onto a card through pinned memory, without waiting; on a CPU they are there.

    On a card the result is written by the current stream, and the caller's.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = str(device)
        self._cuda = is_card(device)
        self._ring: UploadRing | None = None
        self._last: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x on the device. One of another shape or type than the last takes new pinned memory."""
        if not self._cuda:
            return x
        if self._ring is None or self._last != (x.shape, x.dtype):
            self._ring, self._last = UploadRing(tuple(x.shape), x.dtype, self._device), (x.shape, x.dtype)
        return self._ring.upload(x).clone()

    def close(self) -> None:
        """Give the pinned memory back."""
        self._ring = None


class ToHost:
    """Tensors of `device` to the host. The calling thread waits for its own copy, by its event; the device for nobody.

    On a CPU the array is the tensor's own memory, else it is the caller's.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = str(device)
        self._cuda = is_card(device)
        self._ring: DownloadRing | None = None
        self._last: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, x: Tensor) -> npt.NDArray[np.uint8]:
        """uint8 x as an array. One of another shape than the last takes new pinned memory."""
        if not self._cuda:
            return np.asarray(x.numpy())
        if self._ring is None or self._last != (x.shape, x.dtype):
            self._ring, self._last = DownloadRing(tuple(x.shape), x.dtype, self._device), (x.shape, x.dtype)
        return self._ring.download(x).wait().numpy().copy()

    def close(self) -> None:
        """Give the pinned memory back."""
        self._ring = None
