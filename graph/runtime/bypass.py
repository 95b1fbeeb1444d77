"""The way past the networks: the source's pictures go straight to a sink that shows them while no styled ones come, and
the sound of a live source to a sink that keeps it.

A bypass is a link like any other, but it belongs to no epoch: it lasts as long as the processes at its two ends, and
so also while what lies between them is dead and being started again.
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
    """The sending end. Called by the thread that reads the source, for every picture; never waits. Owns the outlet."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet: Outlet | None = outlet
        self._lock = threading.Lock()

    def __call__(self, frame: RawFrame) -> None:
        """Offer a picture. One that has no credit yet gives way to the next."""
        self._offer(frame)

    def _offer(self, value: RawFrame | SoundPiece) -> None:
        with self._lock:
            if self._outlet is None:
                return
            try:
                self._outlet.receive()
                self._outlet.offer(value.stamp.seq, value)
            except WarpfuseError as error:  # the styled picture matters more: the source goes on without its bypass
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
    """The sending end of a bypass for the sound that came with the pictures, whatever becomes of those."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(outlet)
        self._pieces = 0

    def __call__(self, frame: RawFrame) -> None:
        """Offer what came with a picture. What has no credit waits; when too much does, the oldest is dropped."""
        for shift_ns, nut in frame.sound:
            stamp = replace(frame.stamp, seq=self._pieces, pts_ns=shift_ns)
            self._pieces += 1
            self._offer(SoundPiece(stamp, np.frombuffer(bytearray(nut), np.uint8)))


class BypassExit:
    """The receiving end: a thread that gives everything to `show`. Owns the inlet."""

    def __init__(self, inlet: Inlet, show: Callable[[Any], None]) -> None:
        self._inlet = inlet
        self._show = show
        self._cancel = CancelToken()
        self._thread = threading.Thread(target=self._run, name=f"wf:{inlet.plan.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, close the link."""
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
        except WarpfuseError as error:  # the sink shows the last picture instead, until the link is opened anew
            _LOG.warning("%s is cut: %s", self._inlet.plan.name, error)
