"""Bypass links, which go from the source past the networks to a sink.

One kind carries pictures, to a sink that shows them while no styled pictures arrive. The other carries the sound of a
live source. A bypass belongs to no epoch. It lasts as long as the processes at its two ends, also while a process
between them is being started again.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import zmq

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.links.cancel_token import CancelToken
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.stages.frame import RawFrame, SoundPiece

_LOG = logging.getLogger(__name__)


class BypassEntry:
    """The sending end of a bypass. The thread that reads the source calls it for every picture. It never waits.

    It owns the outlet.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet: Outlet | None = outlet
        self._lock = threading.Lock()

    def __call__(self, frame: RawFrame) -> None:
        """Offer a picture. A picture that is still waiting for a credit is replaced by the next one."""
        self._offer(frame)

    def _offer(self, value: RawFrame | SoundPiece) -> None:
        with self._lock:
            if self._outlet is None:
                return
            try:
                self._outlet.receive()
                self._outlet.offer(value.stamp.seq, value)
            except WarpfuseError as error:  # the source goes on without its bypass: the styled pictures matter more
                _LOG.warning("%s is cut: %s", self._outlet.plan.name, error)
                self._close()

    def close(self) -> None:
        """Close the link. A second call does nothing."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None


class SoundEntry(BypassEntry):
    """The sending end of a bypass for sound. It sends the sound of every picture, also of pictures that are dropped."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(outlet)
        self._pieces = 0

    def __call__(self, frame: RawFrame) -> None:
        """Offer the sound that came with a picture. Pieces wait for a credit; when too many wait, the oldest is
        dropped."""
        for shift_ns, nut in frame.sound:
            stamp = replace(frame.stamp, seq=self._pieces, pts_ns=shift_ns)
            self._pieces += 1
            self._offer(SoundPiece(stamp, np.frombuffer(bytearray(nut), np.uint8)))


class BypassExit:
    """The receiving end of a bypass: a thread that calls `show` with every value. It owns the inlet."""

    def __init__(self, inlet: Inlet, show: Callable[[Any], None]) -> None:
        self._inlet = inlet
        self._show = show
        self._cancel = CancelToken()
        self._thread = threading.Thread(target=self._run, name=f"wf:{inlet.plan.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and close the link."""
        self._cancel.set()
        self._thread.join()
        self._cancel.close()
        self._inlet.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._inlet.socket, zmq.POLLIN)
        poller.register(self._cancel.fd, zmq.POLLIN)
        try:
            while not self._cancel.is_set:
                poller.poll()
                self._inlet.receive()
                while self._inlet.ready:
                    self._show(self._inlet.take())
                    self._inlet.done()
        except WarpfuseError as error:  # until the link is opened again, the sink shows the last picture
            _LOG.warning("%s is cut: %s", self._inlet.plan.name, error)
