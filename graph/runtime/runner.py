"""What runs a stage: gather a frame from every input, call the stage, deliver to whoever reads it.

The rules of synchronous dataflow: a stage fires when each of its inputs has a frame, takes one from each and gives one
to each outlet. A feedback link starts with `delay` empty frames, which is what lets a loop start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.link_poller import LinkPoller
from warpfuse.graph.metrics.meters import Meter
from warpfuse.graph.metrics.report import LinkReport, RunnerReport
from warpfuse.graph.metrics.trace import Track
from warpfuse.stages.frame import Frame

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Given:
    """An input that another stage of the same lane gives, by a plain call.

    plan  delay 1: the sender is called later in the lane, so what it gave last is of the frame before
    """

    plan: LinkPlan
    sender: "Runner"


class Runner:
    """A stage, its links and its figures. `Lane` calls `fire`, in its thread; subclasses say what happens to a frame.

    meter   time spent in the stage itself, without any waiting
    hops    of each link into it: from the hand-over there to the taking here, waiting included
    frames  those handled
    passed  the newest frame that was handled, -1 before the first
    at      the frame it was given last in this epoch, -1 before the first
    given   what the stage gave last in this epoch, where a stage of its lane takes that; None before the first frame
    ended   the end of the stream has come through here, or a failure that ends the run
    busy_since  clock at which the call the stage is in began, 0 between calls: a thread that reads it sees a hang
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.stage_name = name
        self.meter = Meter()
        self.hops: dict[str, Meter] = {}
        self.frames = 0
        self.passed = -1
        self.at = -1
        self.given: Any = None
        self.busy_since = 0
        self.ended = False
        self.inlets: list[Inlet] = []
        self.outlets: list[Outlet] = []
        self.track: Track | None = None
        self._feeds: list[Inlet | Given] = []
        self._leading: list[Inlet] = []
        self._gives = False
        self._links: dict[str, LinkReport] = {}
        self._clock = clock
        self._poller = LinkPoller([], [])

    def connect(self, feeds: Sequence[Inlet | Given], outlets: Sequence[Outlet], *, gives: bool = False) -> None:
        """Attach what feeds the stage, in the order of its inputs, and the links it feeds, for an epoch.

        gives  stages of its lane take what it gives
        """
        self._feeds, self.outlets, self._gives = list(feeds), list(outlets), gives
        self.inlets = [feed for feed in feeds if isinstance(feed, Inlet)]
        self._leading = [inlet for inlet in self.inlets if not inlet.plan.delay]
        self.given, self.ended, self.at = None, False, -1
        for inlet in self.inlets:
            if not inlet.plan.bare:  # room waits for the source on purpose
                self.hops.setdefault(inlet.plan.name, Meter())

    def wait_by(self, poller: LinkPoller) -> None:
        """How the runner waits in this epoch: together with the others of its lane."""
        self._poller = poller

    def disconnect(self) -> None:
        """Close the links and keep their figures. After the thread has ended."""
        for outlet in self.outlets:
            self._links[outlet.plan.name] = structs.replace(self._counted(outlet), waiting=False)
        for inlet in self.inlets:
            inlet.close()
        for outlet in self.outlets:
            outlet.close()
        self._feeds, self.inlets, self.outlets, self.given = [], [], [], None

    def fire(self) -> bool:
        """Handle one frame, waiting for it: True. False at the end of the stream."""
        raise NotImplementedError

    def drain(self) -> None:
        """The stream has ended in order: deliver what the stage kept back."""

    def finish(self, complete: bool) -> None:
        """The stream has ended. Sinks complete or discard what they wrote."""

    def close(self) -> None:
        """Close what the runner runs. After the last epoch."""

    @property
    def links(self) -> dict[str, LinkReport]:
        """Figures of the links this stage feeds, over all epochs."""
        return {**self._links, **{outlet.plan.name: self._counted(outlet) for outlet in self.outlets}}

    @property
    def starving(self) -> list[str]:
        """Links into this stage that have no frame for it just now. From any thread."""
        return [inlet.plan.name for inlet in self.inlets if not inlet.ready]

    def gather(self) -> bool:
        """Wait until every inlet has a frame: True. False at the end of the stream on all of them."""
        self._poller.check()
        for inlet in self.inlets:
            while not inlet.ready:
                if self._over():
                    return False
                self._poller.wait()
                self._poller.check()
        return True

    def report(self, now_ns: int) -> RunnerReport:
        """The figures so far, from any thread: a histogram that is being written may lack the last entry."""
        busy_since = self.busy_since
        return RunnerReport(
            self.stage_name,
            self.frames,
            self.passed,
            self.ended,
            max(0, now_ns - busy_since) if busy_since else 0,
            self.meter.encode(),
            self.links,
            {name: meter.encode() for name, meter in self.hops.items()},
            self.starving,
        )

    def _over(self) -> bool:
        """The stream has ended on all inlets: a stage that left at the first end would leave a sender still
        delivering. Raises RuntimeError when one ended before the others."""
        leading = self._leading
        over = [inlet for inlet in leading if inlet.ended and not inlet.ready]
        if over and len(over) < len(leading) == len(over) + sum(inlet.ready for inlet in leading):
            raise RuntimeError(f"{over[0].plan.name} ended a frame or more before the other inputs")
        return bool(leading) and len(over) == len(leading)

    def _counted(self, outlet: Outlet) -> LinkReport:
        """Of a link, this epoch included."""
        before = self._links.get(outlet.plan.name, LinkReport(outlet.plan.slots))
        return before + LinkReport(outlet.plan.slots, outlet.sent, outlet.peak, outlet.dropped, outlet.waiting > 0)

    def _begin(self, seq: int) -> int:
        """A call of the stage begins: says since when it lasts. Gives the clock."""
        begun = self.busy_since = self._clock()
        self.at = seq
        return begun

    def _end(self, seq: int, begun: int) -> None:
        """The call is over: keeps it in the trace. After one that raised the lane takes `busy_since` back."""
        self.busy_since = 0
        if self.track is not None:
            self.track.add(self.stage_name, seq, begun, self._clock())

    def _take(self, inlet: Inlet) -> Any:
        """The next frame of a link, its hop timed."""
        value = inlet.take()
        if inlet.sent_ns:
            self.hops[inlet.plan.name].record(self._clock() - inlet.sent_ns)
        return value

    def _deliver(self, seq: int, value: Any) -> None:
        """Offer a value to every outlet, waiting for the slow ones."""
        if not self.outlets:
            return
        for outlet in self.outlets:
            outlet.receive()
            while outlet.blocked:
                self._poller.wait()
                self._poller.check()
            if outlet.plan.bare:
                outlet.offer(seq, Frame(value.stamp))
            else:
                outlet.offer(seq, value, self._clock())
        self._poller.check()
