"""Borrowed memory: the slots of links from other processes.

A stage reads the pictures of another process in place. When the stage returns, the slot is returned and filled again.
To keep a frame or a part of it for longer, a stage keeps `owned(x)`: a copy if x lies in borrowed memory, else x.

Borrowed memory is recognized by its address, so a crop or a transposed view of it is recognized too.
"""

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from warpfuse.stages.frame import CardFrame, Frame, RawFrame

if TYPE_CHECKING:  # processes that only capture or show do not load torch
    from torch import Tensor

T = TypeVar("T", bound="Frame | RawFrame | Tensor | np.ndarray[Any, Any] | None")

_lock = threading.Lock()
_ranges: tuple[tuple[int, int], ...] = ()  # replaced as a whole, so reading it needs no lock


def mark_borrowed(start: int, nbytes: int) -> None:
    """Mark `nbytes` bytes from address `start` as borrowed memory. Thread-safe."""
    global _ranges
    with _lock:
        _ranges = (*_ranges, (start, start + nbytes))


def unmark_borrowed(start: int, nbytes: int) -> None:
    """Undo `mark_borrowed`, when the bytes are no longer mapped. Thread-safe."""
    global _ranges
    with _lock:
        _ranges = tuple(r for r in _ranges if r != (start, start + nbytes))


def is_borrowed(x: "Tensor | np.ndarray[Any, Any]") -> bool:
    """True if x lies in borrowed memory."""
    if not _ranges:
        return False
    address = int(x.__array_interface__["data"][0]) if isinstance(x, np.ndarray) else x.data_ptr()
    return any(start <= address < end for start, end in _ranges)


def owned(x: T) -> T:
    """x in memory that the caller may keep: a copy if x lies in borrowed memory, else x itself."""
    if not _ranges or x is None:
        return x
    if isinstance(x, Frame):
        if not any(is_borrowed(tensor) for tensor in x.tensors.values()):
            return x
        copied: Any = x.of(x.stamp, {name: owned(tensor) for name, tensor in x.tensors.items()}, x.ready)
        return copied  # type: ignore[no-any-return]
    if isinstance(x, RawFrame):
        return x if isinstance(x, CardFrame) or not is_borrowed(x.rgb) else replace(x, rgb=owned(x.rgb))
    if not is_borrowed(x):
        return x
    copy: Any = x.copy(order="K") if isinstance(x, np.ndarray) else x.clone()
    return copy  # type: ignore[no-any-return]
