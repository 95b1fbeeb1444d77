"""Streams that continue from one run of the queue to the next: a Pipeline for each name, closed when it is idle."""

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from warpfuse.comfy.pictures import Each, Rgb, checked, to_bytes, to_image
from warpfuse.comfy.styling import Restyler, own_threads
from warpfuse.graph.plan.live_settings import NeedsRestart

Place = tuple[str, str, tuple[int, int]]
"""Name, bundle and (height, width), which identify a stream."""

IDLE_S = 30.0
"""Time without frames after which a stream is closed, seconds."""


@dataclass(slots=True)
class _Open:
    restyler: Restyler
    keys: dict[str, Any]
    used_s: float


class LiveStreams:
    """The open streams. Thread-safe; threads run one after the other.

    clock  seconds, monotonic
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[Place, _Open] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def restyle(self, name: str, images: Tensor, keys: Mapping[str, Any], each: Each) -> Tensor:
        """Restyle the next frames of a stream, IMAGE [B, H, W, 3] -> IMAGE [B, H', W', 3].

        Changed settings take effect from the first of these frames on. If they cannot change while frames flow, the
        stream is opened again, without a past, as after a failure. With a stream batch the first K - 1 pictures are the
        source's.
        """
        images = checked(images)
        place = name, str(keys["bundle"]), (images.shape[1], images.shape[2])
        with self._lock, own_threads():
            one = self._stream(place, dict(keys))  # invalid settings raise here and leave the stream unchanged
            try:
                return torch.stack([self._next(one, image, i, each) for i, image in enumerate(images, 1)])
            except BaseException:
                self._close(place)  # a failed Pipeline cannot continue, nor a stream after an interrupted run
                raise

    def close_idle(self, idle_s: float) -> None:
        """Close the streams that have been idle for `idle_s` seconds."""
        with self._lock:
            for place in [place for place, one in self._open.items() if self._clock() - one.used_s >= idle_s]:
                self._close(place)

    def close(self) -> None:
        """Close every stream."""
        with self._lock:
            for place in list(self._open):
                self._close(place)

    def _next(self, one: _Open, image: Tensor, number: int, each: Each) -> Tensor:
        one.used_s = self._clock()
        styled = one.restyler.push(image)
        shown: Rgb = to_bytes(image) if styled is None else styled
        each(number, shown)
        return to_image(shown)

    def _stream(self, place: Place, keys: dict[str, Any]) -> _Open:
        one = self._open.get(place)
        if one is not None and one.keys != keys:
            try:
                if _lacks(keys, one.keys):
                    raise NeedsRestart("a key that is left out goes back to its default")
                one.restyler.update(**{key: value for key, value in keys.items() if one.keys.get(key) != value})
                one.keys = keys
            except NeedsRestart:
                self._close(place)
                one = None
        if one is None:
            one = self._open[place] = _Open(Restyler(keys, place[2]), keys, self._clock())
        return one

    def _close(self, place: Place) -> None:
        if (one := self._open.pop(place, None)) is not None:
            with contextlib.suppress(Exception):  # its error was raised before
                one.restyler.close()


@cache
def shared_streams() -> LiveStreams:
    """The streams of this process. A thread closes idle ones; all are closed when the process ends."""
    streams, over = LiveStreams(time.monotonic), threading.Event()

    def close_the_idle() -> None:
        while not over.wait(IDLE_S / 4):
            streams.close_idle(IDLE_S)

    threading.Thread(target=close_the_idle, name="warpfuse-idle", daemon=True).start()
    atexit.register(streams.close)
    atexit.register(over.set)
    return streams


def _lacks(keys: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """`keys` lacks a key of `before`, also a nested one. An update cannot remove keys."""
    return any(
        key not in keys or (isinstance(old, dict) and isinstance(keys[key], dict) and _lacks(keys[key], old))
        for key, old in before.items()
    )
