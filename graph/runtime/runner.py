"""The runner of a stage: it gathers a frame from every input, calls the stage and delivers the output.

The rules are those of synchronous dataflow. A stage fires when each of its inputs has a frame. It takes one frame from
each input and gives one to each outlet. A feedback link starts with `delay` empty frames, so that the loop can start.
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
from warpfuse.stages.frame import Frame, Stamp

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Given:
    """An input that comes from another stage of the same lane, without a link.

    plan  with delay 1 the sender is called later in the lane, so its last output belongs to the frame before
    """

    plan: LinkPlan
    sender: "Runner"


class Runner:
    """A stage, its links and its figures. Its lane's thread calls `fire`; subclasses define what is done with a frame.

    meter       time in the stage's calls, without waiting
    hops        by link into the stage: from the sender's hand-over until the frame is taken, waiting included
    frames      number of frames handled
    passed      number of the newest frame handled, -1 before the first
    at          number of the frame it was called with last in this epoch, -1 before the first
    stamp       of the frame that a stage between source and sinks took last
    given       the stage's last output in this epoch, kept if a stage of the same lane takes it; else None
    ended       the stage has handled the end of the stream, or a failure that ends the run
    busy_since  clock when the call under way began, 0 between calls. Another thread can detect a hang by it
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.stage_name = name
        self.meter = Meter()
        self.hops: dict[str, Meter] = {}
        self.frames = 0
        self.passed = -1
        self.at = -1
        self.stamp: Stamp | None = None
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
        """Attach the inputs, in the order of the stage's arguments, and the outlets, for an epoch.

        gives  other stages of its lane take its output
        """
        self._feeds, self.outlets, self._gives = list(feeds), list(outlets), gives
        self.inlets = [feed for feed in feeds if isinstance(feed, Inlet)]
        self._leading = [inlet for inlet in self.inlets if not inlet.plan.delay]
        self.given, self.ended, self.at = None, False, -1
        for inlet in self.inlets:
            if not inlet.plan.bare:  # the link that limits frames in flight is meant to wait: its hops say nothing
                self.hops.setdefault(inlet.plan.name, Meter())

    def wait_by(self, poller: LinkPoller) -> None:
        """Set the poller for this epoch. All runners of a lane share one."""
        self._poller = poller

    def disconnect(self) -> None:
        """Close the links and keep their figures. Call it after the thread has ended."""
        for outlet in self.outlets:
            self._links[outlet.plan.name] = structs.replace(self._counted(outlet), waiting=False)
        for inlet in self.inlets:
            inlet.close()
        for outlet in self.outlets:
            outlet.close()
        self._feeds, self.inlets, self.outlets, self.given = [], [], [], None

    def fire(self) -> bool:
        """Wait for the next frame and handle it. False at the end of the stream."""
        raise NotImplementedError

    def drain(self) -> None:
        """Deliver the frames that the stage still holds. Called at the regular end of the stream."""

    def finish(self, complete: bool) -> None:
        """End the stream in this stage. A sink completes its output, or discards it if not `complete`."""

    def close(self) -> None:
        """Close the stage. Called after the last epoch."""

    @property
    def given_by(self) -> list[Given]:
        """The inputs that come from stages of the same lane."""
        return [feed for feed in self._feeds if isinstance(feed, Given)]

    @property
    def links(self) -> dict[str, LinkReport]:
        """Figures of the links out of this stage, over all epochs."""
        return {**self._links, **{outlet.plan.name: self._counted(outlet) for outlet in self.outlets}}

    @property
    def starving(self) -> list[str]:
        """Names of the links into this stage that have no frame for it at the moment. From any thread."""
        return [inlet.plan.name for inlet in self.inlets if not inlet.ready]

    def gather(self) -> bool:
        """Wait until every inlet has a frame. False when the stream has ended on all inlets."""
        for inlet in self.inlets:
            while not inlet.ready:
                if self._over():
                    return False
                self._poller.wait()
                self._poller.check()
        return True

    def report(self, now_ns: int) -> RunnerReport:
        """The figures so far. From any thread: a histogram may lack the call that is just being recorded."""
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
        """The stream has ended on all inlets. Waiting for all lets every sender deliver its last frames.

        Raises RuntimeError when an inlet ended while the others still have frames.
        """
        leading = self._leading
        over = [inlet for inlet in leading if inlet.ended and not inlet.ready]
        if over and len(over) < len(leading) == len(over) + sum(inlet.ready for inlet in leading):
            raise RuntimeError(f"{over[0].plan.name} ended a frame or more before the other inputs")
        return bool(leading) and len(over) == len(leading)

    def _counted(self, outlet: Outlet) -> LinkReport:
        """Figures of an outlet's link over all epochs, this one included."""
        before = self._links.get(outlet.plan.name, LinkReport(outlet.plan.slots))
        return before + LinkReport(outlet.plan.slots, outlet.sent, outlet.peak, outlet.dropped, outlet.waiting > 0)

    def _begin(self, seq: int) -> int:
        """Mark the begin of a call of the stage. Returns the clock."""
        begun = self.busy_since = self._clock()
        self.at = seq
        return begun

    def _end(self, seq: int, begun: int) -> int:
        """Mark the end of a call, and add it to the trace. Returns its duration, ns.

        After a call that raised, the lane resets `busy_since`.
        """
        self.busy_since = 0
        ended = self._clock()
        if self.track is not None:
            self.track.add(self.stage_name, seq, begun, ended)
        return ended - begun

    def _take(self, inlet: Inlet) -> Any:
        """Take the next frame of a link and record its hop."""
        value = inlet.take()
        if inlet.sent_ns:
            self.hops[inlet.plan.name].record(self._clock() - inlet.sent_ns)
        return value

    def _deliver(self, seq: int, value: Any) -> None:
        """Offer a value to every outlet, and wait while one is blocked."""
        for outlet in self.outlets:
            outlet.receive()
            while outlet.blocked:
                self._poller.wait()
                self._poller.check()
            if outlet.plan.bare:
                outlet.offer(seq, Frame(value.stamp))
            else:
                outlet.offer(seq, value, self._clock())
