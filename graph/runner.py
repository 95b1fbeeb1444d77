"""What runs a stage in a thread: gather a frame from every inlet, call the stage, deliver to every outlet.

The rules of synchronous dataflow: a stage fires when each of its inputs has a frame, takes one from each and gives one
to each outlet. A feedback link starts with `delay` empty frames, which is what lets a loop start. Everything a thread
waits for comes as a message on one of its own sockets, so one poll covers frames, credits, ends and failures.

How a run ends: EOS travels down the links behind the last frame. A stage that fails for good sends ERROR down, which
makes the sinks discard what is not complete, and BYE up, which makes everything before it stop.

How an epoch ends: the worker sets its `Halt`, every thread returns without a word to its links, the stages stay open,
and the runners are connected anew.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import zmq

from warpfuse.graph.cores import keep_to
from warpfuse.graph.faults import Fault, Faults
from warpfuse.graph.halt import Halt
from warpfuse.graph.link import Inlet, Outlet
from warpfuse.graph.link_figures import LinkFigures
from warpfuse.graph.meters import Meter
from warpfuse.graph.trace import Track
from warpfuse.stages.frame import Frame

Clock = Callable[[], int]


class _NeighbourGone(Exception):
    """Another stage failed; `origin` is its name if it is known."""

    def __init__(self, origin: str) -> None:
        super().__init__(origin)
        self.origin = origin


class _Halted(Exception):
    """The epoch is over."""


class Runner:
    """A stage, its links and its figures; a thread for each epoch. Subclasses say what happens to a frame.

    meter   time spent in the stage itself, without any waiting
    hops    of each link into it: from the hand-over there to the taking here, waiting included
    frames  those handled
    passed  the newest frame that was handled, -1 before the first
    failed  once a thread has ended: the stage because of which it did, None at the end of the stream
    ended   the end of the stream has come through here, or a failure that ends the run
    core    that the thread keeps to, None: to none
    busy_since  clock at which the call the stage is in began, 0 between calls: a thread that reads it sees a hang
    """

    def __init__(self, name: str, clock: Clock, faults: Faults) -> None:
        self.stage_name = name
        self.meter = Meter()
        self.hops: dict[str, Meter] = {}
        self.frames = 0
        self.passed = -1
        self.busy_since = 0
        self.failed: str | None = None
        self.ended = False
        self.inlets: list[Inlet] = []
        self.outlets: list[Outlet] = []
        self.track: Track | None = None
        self.core: int | None = None
        self._links: dict[str, LinkFigures] = {}
        self._clock = clock
        self._faults = faults
        self._at = -1
        self._halt: Halt | None = None
        self._thread: threading.Thread | None = None
        self._any = zmq.Poller()
        self._frames_only = zmq.Poller()

    def connect(self, inlets: Sequence[Inlet], outlets: Sequence[Outlet], halt: Halt | None = None) -> None:
        """Attach the links of an epoch, inlets in the order of the stage's inputs. Before `start`.

        halt  ends the thread without ending the links
        """
        self.inlets, self.outlets, self._halt = list(inlets), list(outlets), halt
        self.failed, self.ended, self._at = None, False, -1
        self._any, self._frames_only = zmq.Poller(), zmq.Poller()
        if halt is not None:
            self._any.register(halt.fd, zmq.POLLIN)
            self._frames_only.register(halt.fd, zmq.POLLIN)
        for end in self._ends:
            self._any.register(end.socket, zmq.POLLIN)
        for inlet in self.inlets:
            self._frames_only.register(inlet.socket, zmq.POLLIN)
            if not inlet.plan.bare:  # room waits for the source on purpose
                self.hops.setdefault(inlet.plan.name, Meter())

    def disconnect(self) -> None:
        """Close the links and keep their figures. After the thread has ended."""
        for outlet in self.outlets:
            self._links[outlet.plan.name] = replace(self._counted(outlet), waiting=False)
        for end in self._ends:
            end.close()
        self.inlets, self.outlets, self._thread = [], [], None

    def start(self) -> None:
        """Start the thread of this epoch."""
        self._thread = threading.Thread(target=self._live, name=f"wf:{self.stage_name}", daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """The thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Close what the runner runs. After the last epoch."""

    @property
    def links(self) -> dict[str, LinkFigures]:
        """Figures of the links this stage feeds, over all epochs."""
        return {**self._links, **{outlet.plan.name: self._counted(outlet) for outlet in self.outlets}}

    @property
    def starving(self) -> list[str]:
        """Links into this stage that have no frame for it just now. From any thread."""
        return [inlet.plan.name for inlet in self.inlets if not inlet.ready]

    @property
    def _ends(self) -> list[Inlet | Outlet]:
        return [*self.inlets, *self.outlets]

    def _counted(self, outlet: Outlet) -> LinkFigures:
        return self._links.get(outlet.plan.name, LinkFigures(outlet.plan.slots)).plus(outlet)

    def _live(self) -> None:
        """The thread: work, then end the links, unless the epoch was over or the failure is spared."""
        if self.core is not None:
            keep_to(self.core)
        try:
            self._work()
        except _Halted:
            return
        except _NeighbourGone as gone:
            self.failed = gone.origin
        except BaseException as error:  # noqa: BLE001  (recorded, and raised where the run was started)
            if self._faults.spared(Fault(self.stage_name, error, self._at, self.passed)):
                return
            self.failed = self.stage_name
        finally:
            self.busy_since = 0
        try:
            self._finish(complete=self.failed is None)
        except BaseException as error:  # noqa: BLE001
            if self._faults.spared(Fault(self.stage_name, error)):
                return
            self.failed = self.failed or self.stage_name
        with contextlib.suppress(_Halted):
            self._end_links(self.failed)
            self.ended = True

    def _work(self) -> None:
        raise NotImplementedError

    def _finish(self, complete: bool) -> None:
        """The stream has ended. Sinks complete or discard what they wrote."""

    @contextlib.contextmanager
    def _call(self, seq: int) -> Iterator[int]:
        """Around a call of the stage: says since when it lasts, and keeps the trace. Gives the clock."""
        begun = self.busy_since = self._clock()
        self._at = seq
        yield begun
        self.busy_since = 0
        if self.track is not None:
            self.track.add(self.stage_name, seq, begun, self._clock())

    def _gather(self) -> bool:
        """Wait until every inlet has a frame: True. False at the end of the stream on all of them."""
        while True:
            self._check_neighbours()
            if all(inlet.ready for inlet in self.inlets):
                return True
            leading = [inlet for inlet in self.inlets if not inlet.plan.delay]
            over = [inlet for inlet in leading if inlet.ended and not inlet.ready]
            # All of them: a stage that left at the first end would pull the rug from under a sender still delivering.
            if len(over) == len(leading):
                return False
            if over and len(over) + sum(inlet.ready for inlet in leading) == len(leading):
                raise RuntimeError(f"{over[0].plan.name} ended a frame or more before the other inputs")
            self._wait()

    def _take(self, inlet: Inlet) -> Any:
        """The next frame of a link, its hop timed."""
        value = inlet.take()
        if inlet.sent_ns:
            self.hops[inlet.plan.name].record(self._clock() - inlet.sent_ns)
        return value

    def _deliver(self, seq: int, value: Any) -> None:
        """Offer a value to every outlet, waiting for the slow ones."""
        for outlet in self.outlets:
            outlet.receive()
            while outlet.blocked:
                self._wait()
                self._check_neighbours()
            if outlet.plan.bare:
                outlet.offer(seq, Frame(value.stamp))
            else:
                outlet.offer(seq, value, self._clock())
        self._check_neighbours()

    def _check_neighbours(self) -> None:
        if self._halt is not None and self._halt.is_set:
            raise _Halted
        for inlet in self.inlets:
            if inlet.failed is not None:
                raise _NeighbourGone(inlet.failed)
        for outlet in self.outlets:
            if outlet.failed is not None:
                raise _NeighbourGone(outlet.failed)

    def _wait(self, timeout_ms: int | None = None) -> None:
        """Until a message has arrived that may be of interest, or the epoch ends."""
        # Note: lazy credits. A credit is of interest only to a frame that waits for one. To be woken by the others
        # costs a context switch for each link and frame, so they are left lying until the next frame is offered.
        idle = bool(self.inlets) and not any(outlet.waiting or outlet.ending for outlet in self.outlets)
        self._receive(self._frames_only if idle else self._any, timeout_ms)

    def _receive(self, poller: zmq.Poller, timeout_ms: int | None = None) -> None:
        ready = dict(poller.poll(timeout_ms))
        for end in self._ends:
            if end.socket in ready:
                end.receive()

    def _end_links(self, failed: str | None) -> None:
        for inlet in self.inlets:
            inlet.bye(failed)
        for outlet in self.outlets:
            outlet.finish(failed)
        while not all(outlet.finished for outlet in self.outlets):
            self._wait()
            if self._halt is not None and self._halt.is_set:
                raise _Halted
