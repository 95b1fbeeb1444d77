"""The one place where a thread waits: a poll over the sockets of its links and the cancel token of its epoch."""

from collections.abc import Sequence

import zmq

from warpfuse.graph.links.cancel_token import CancelToken
from warpfuse.graph.links.link import Inlet, Outlet


class NeighbourGone(Exception):
    """A stage at the other end of a link failed. `origin` is the name of the stage that failed first."""

    def __init__(self, origin: str) -> None:
        super().__init__(origin)
        self.origin = origin


class Halted(Exception):
    """The epoch was cancelled."""


class LinkPoller:
    """Waits for messages on the link ends of one thread. It does not close them.

    cancel  set when the epoch is over: every wait returns, and `check` raises
    """

    def __init__(self, inlets: Sequence[Inlet], outlets: Sequence[Outlet], cancel: CancelToken | None = None) -> None:
        self._inlets, self._outlets, self._cancel = list(inlets), list(outlets), cancel
        self._ends: list[Inlet | Outlet] = [*inlets, *outlets]
        self._by_socket = {end.socket: end for end in self._ends}
        self._any, self._frames_only = zmq.Poller(), zmq.Poller()
        if cancel is not None:
            self._any.register(cancel.fd, zmq.POLLIN)
            self._frames_only.register(cancel.fd, zmq.POLLIN)
        for end in self._ends:
            self._any.register(end.socket, zmq.POLLIN)
        for inlet in self._inlets:
            self._frames_only.register(inlet.socket, zmq.POLLIN)
        self._besides: dict[int, zmq.Poller] = {}

    def check(self) -> None:
        """Raise Halted when the epoch is over, NeighbourGone when a stage at the other end of a link has failed."""
        if self._cancel is not None and self._cancel.is_set:
            raise Halted
        for end in self._ends:
            if end.failed is not None:
                raise NeighbourGone(end.failed)

    def wait(self, timeout_ms: int | None = None) -> None:
        """Wait until a frame, or a credit that a frame waits for, has arrived, or the epoch ends."""
        # Note: lazy credits. A credit matters only while a frame waits for it. Waking up for every credit would cost a
        # context switch for each link and frame. So the other credits are read when the next frame is offered.
        poller = self._frames_only if self._inlets else self._any
        for outlet in self._outlets:
            if outlet.expecting:
                poller = self._any
        self._receive(poller, timeout_ms)

    def wait_for_any(self, timeout_ms: int | None = None, *, fd: int | None = None) -> None:
        """Wait until any message has arrived, `fd` is readable, or the epoch ends."""
        self._receive(self._any if fd is None else self._beside(fd), timeout_ms)

    def end(self, failed: str | None) -> None:
        """End every link and wait until every frame sent was received. failed: the stage that failed, if any.

        Raises Halted when the epoch ends first.
        """
        for inlet in self._inlets:
            inlet.bye(failed)
        for outlet in self._outlets:
            outlet.finish(failed)
        while not all(outlet.finished for outlet in self._outlets):
            self.wait()
            if self._cancel is not None and self._cancel.is_set:
                raise Halted

    def _beside(self, fd: int) -> zmq.Poller:
        if fd not in self._besides:
            self._besides[fd] = zmq.Poller()
            for what, flags in (*self._any.sockets, (fd, zmq.POLLIN)):
                self._besides[fd].register(what, flags)
        return self._besides[fd]

    def _receive(self, poller: zmq.Poller, timeout_ms: int | None) -> None:
        for socket, _ in poller.poll(timeout_ms):
            end = self._by_socket.get(socket)
            if end is not None:  # None: the cancel token or `fd`
                end.receive()
