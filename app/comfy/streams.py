"""Streams that last from one queue run to the next: a Pipeline for each name, closed when nobody comes any more."""

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
"""Name, bundle and (height, width) of a stream: any other has another past."""

IDLE_S = 30.0
"""A stream that no run has asked for frames for so long is closed."""


@dataclass(slots=True)
class _Open:
    restyler: Restyler
    keys: dict[str, Any]
    used_s: float


class LiveStreams:
    """Open streams. Safe to call from several threads, which take turns.

    clock  seconds, monotonic
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[Place, _Open] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def restyle(self, name: str, images: Tensor, keys: Mapping[str, Any], each: Each) -> Tensor:
        """The next frames of a stream, IMAGE [B, H, W, 3] -> IMAGE of as many.

        Settings that differ from the last run's hold from here on; those that decide what was built open it anew, and
        the style starts without a past, as after a failure. Of a stream batch the first K - 1 pictures are the source.
        """
        images = checked(images)
        place = name, str(keys["bundle"]), (images.shape[1], images.shape[2])
        with self._lock, own_threads():
            one = self._stream(place, dict(keys))  # settings that cannot be leave the stream as it was
            try:
                return torch.stack([self._next(one, image, i, each) for i, image in enumerate(images, 1)])
            except BaseException:
                self._close(place)  # a Pipeline that broke off cannot go on, and half a clip is no past
                raise

    def close_idle(self, idle_s: float) -> None:
        """Close the streams that nobody has used for so long."""
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
            with contextlib.suppress(Exception):  # what it failed with was told when it failed
                one.restyler.close()


@cache
def shared_streams() -> LiveStreams:
    """Those of this process, with a thread that closes what is idle; all are closed when it ends."""
    streams, over = LiveStreams(time.monotonic), threading.Event()

    def close_the_idle() -> None:
        while not over.wait(IDLE_S / 4):
            streams.close_idle(IDLE_S)

    threading.Thread(target=close_the_idle, name="warpfuse-idle", daemon=True).start()
    atexit.register(streams.close)
    atexit.register(over.set)
    return streams


def _lacks(keys: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a key of `before` is left out, a nested one too: an update adds keys and takes none away."""
    return any(
        key not in keys or (isinstance(old, dict) and isinstance(keys[key], dict) and _lacks(keys[key], old))
        for key, old in before.items()
    )
