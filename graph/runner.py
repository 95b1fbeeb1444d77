"""Run one stage in one thread: gather a frame from every inlet, call the stage, deliver to every outlet.

The rules of synchronous dataflow: a stage fires when each of its inputs has a frame, takes one from each and gives one
to each outlet. A feedback link starts with `delay` empty frames, which is what lets a loop start. Everything a thread
waits for comes as a message on one of its own sockets, so one poll covers frames, credits, ends and failures.

How a run ends: EOS travels down the links behind the last frame. A stage that fails sends ERROR down, which makes the
sinks discard what is not complete, and BYE up, which makes everything before it stop.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import zmq

from warpfuse.engine.streams import DeviceClock, NoStream, new_stream, on, reads, wrote
from warpfuse.graph.link import Inlet, Outlet
from warpfuse.graph.meters import Meter
from warpfuse.graph.pacer import Pacer
from warpfuse.graph.settings import SettingsBook
from warpfuse.stages.frame import Frame, RawFrame
from warpfuse.stages.lent import kept
from warpfuse.stages.stage import Delaying, Sink, Source, Stage

Clock = Callable[[], int]


class FirstError:
    """The error that stopped the run: the first one wins, those it caused are not kept. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stage: str | None = None
        self.error: BaseException | None = None

    def record(self, stage: str, error: BaseException) -> None:
        """Keep the error unless there is one already."""
        with self._lock:
            if self.error is None:
                self.stage, self.error = stage, error


class _NeighbourGone(Exception):
    """Another stage failed; `origin` is its name if it is known."""

    def __init__(self, origin: str) -> None:
        super().__init__(origin)
        self.origin = origin


class Runner(threading.Thread):
    """A thread, its links and its figures. Subclasses say what happens to a frame.

    `meter` holds the time spent in the stage itself, without any waiting. `failed`, once the thread has ended, is the
    stage because of which it did, None at the end of the stream.
    """

    def __init__(self, name: str, clock: Clock, first_error: FirstError) -> None:
        super().__init__(name=f"wf:{name}", daemon=True)
        self.stage_name = name
        self.meter = Meter()
        self.frames = 0
        self.failed: str | None = None
        self.inlets: list[Inlet] = []
        self.outlets: list[Outlet] = []
        self._clock = clock
        self._first_error = first_error
        self._any = zmq.Poller()
        self._frames_only = zmq.Poller()

    def connect(self, inlets: Sequence[Inlet], outlets: Sequence[Outlet]) -> None:
        """Attach the links, inlets in the order of the stage's inputs. Before `start`."""
        self.inlets, self.outlets = list(inlets), list(outlets)
        for end in self._ends:
            self._any.register(end.socket, zmq.POLLIN)
        for inlet in self.inlets:
            self._frames_only.register(inlet.socket, zmq.POLLIN)

    def disconnect(self) -> None:
        """Close the links. After the thread has ended."""
        for end in self._ends:
            end.close()

    @property
    def _ends(self) -> list[Inlet | Outlet]:
        return [*self.inlets, *self.outlets]

    def run(self) -> None:
        """The thread: work, then end the links, whatever happened."""
        try:
            self._work()
        except _NeighbourGone as gone:
            self.failed = gone.origin
        except BaseException as error:  # noqa: BLE001  (recorded, and raised where the run was started)
            self.failed = self.stage_name
            self._first_error.record(self.stage_name, error)
        try:
            self._close(complete=self.failed is None)
        except BaseException as error:  # noqa: BLE001
            self.failed = self.failed or self.stage_name
            self._first_error.record(self.stage_name, error)
        self._end_links(self.failed)

    def _work(self) -> None:
        raise NotImplementedError

    def _close(self, complete: bool) -> None:
        raise NotImplementedError

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

    def _deliver(self, seq: int, value: Any) -> None:
        """Offer a value to every outlet, waiting for the slow ones."""
        for outlet in self.outlets:
            outlet.receive()
            while outlet.blocked:
                self._wait()
                self._check_neighbours()
            outlet.offer(seq, value)
        self._check_neighbours()

    def _check_neighbours(self) -> None:
        for inlet in self.inlets:
            if inlet.failed is not None:
                raise _NeighbourGone(inlet.failed)
        for outlet in self.outlets:
            if outlet.failed is not None:
                raise _NeighbourGone(outlet.failed)

    def _wait(self) -> None:
        # Note: lazy credits. A credit is of interest only to a frame that waits for one. To be woken by the others
        # costs a context switch for each link and frame, so they are left lying until the next frame is offered.
        idle = bool(self.inlets) and not any(outlet.waiting or outlet.ending for outlet in self.outlets)
        ready = dict((self._frames_only if idle else self._any).poll())
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


class SourceRunner(Runner):
    """Reads frames, stamps them with the clock and the version of the settings, and sends them on.

    stopped  asked before each frame: True ends the stream
    """

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Clock,
        first_error: FirstError,
        *,
        stopped: Callable[[], bool],
        book: SettingsBook,
    ) -> None:
        super().__init__(name, clock, first_error)
        self._source = source
        self._stopped = stopped
        self._book = book
        self.started_ns = 0

    def _work(self) -> None:
        self.started_ns = self._clock()
        while not self._stopped():
            begun = self._clock()
            raw = self._source.read()
            now = self._clock()
            if raw is None:
                return
            self.meter.record(now - begun)
            self.frames += 1
            stamp = replace(raw.stamp, arrived_ns=raw.stamp.arrived_ns or now, settings=self._book.newest)
            self._deliver(stamp.seq, RawFrame(stamp, raw.rgb))
            self._hand_over()

    def _hand_over(self) -> None:
        """Wait until the frame is sent: a thread that blocks in `read` would not see the credit for it arrive."""
        while any(outlet.waiting for outlet in self.outlets):
            self._wait()
            self._check_neighbours()

    def _close(self, complete: bool) -> None:
        self._source.close()


class StageRunner(Runner):
    """Calls a stage for every frame, and delivers what is ready.

    settings_of  picks the stage's own settings out of a version of the book; None for a stage that has none
    pacer        judges the frames before the stage sees them; the meter leaves out those that are held
    device       where the stage works: on a card, on a CUDA stream of its own
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        clock: Clock,
        first_error: FirstError,
        *,
        book: SettingsBook,
        settings_of: Callable[[Any], Any] | None,
        pacer: Pacer | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(name, clock, first_error)
        self._stage = stage
        self._device = device
        self._stream = new_stream(device)
        self._device_clock = None if isinstance(self._stream, NoStream) else DeviceClock()
        self._pacer = pacer
        self._book = book
        self._settings_of = settings_of
        self._version = 0

    def _work(self) -> None:
        with on(self._stream):
            self._call_for_every_frame()
            if isinstance(self._stage, Delaying):
                while (late := self._stage.flush()) is not None:
                    self._deliver(late.stamp.seq, self._written(late))

    def _call_for_every_frame(self) -> None:
        leading = next(i for i, inlet in enumerate(self.inlets) if not inlet.plan.delay)
        while self._gather():
            frames = [self._read(inlet.take()) for inlet in self.inlets]
            stamp = frames[leading].stamp
            if stamp.settings != self._version:
                self._version = stamp.settings
                if self._settings_of is not None:
                    self._stage.update(self._settings_of(self._book[stamp.settings]))
            begun = self._clock()
            if self._pacer is not None:
                frames[0] = self._pacer.judge(frames[0], self._book[stamp.settings].pace, begun)
            out = self._timed(frames, begun, metered=not stamp.hold)
            self.frames += 1
            out = kept(out)  # what a stage passes on may be lent, and only until `done`
            for inlet in self.inlets:
                inlet.done()
            if out is not None:
                self._deliver(out.stamp.seq, self._written(out))

    def _timed(self, frames: Sequence[Any], begun: int, *, metered: bool) -> Any:
        """Call the stage. On a card its time is the device's own, known some frames later; the call only launches."""
        clock = self._device_clock
        if clock is None:
            out = self._stage(*frames)
            if metered:
                self.meter.record(self._clock() - begun)
            return out
        if metered:
            clock.begin()
        out = self._stage(*frames)
        if metered:
            clock.end()
        for duration_ns in clock.over():
            self.meter.record(duration_ns)
        return out

    def _read(self, frame: Any) -> Any:
        if isinstance(frame, Frame):
            reads(frame.tensors.values(), frame.ready, self._stream)
        return frame

    def _written(self, out: Any) -> Any:
        if isinstance(self._stream, NoStream):
            return out
        return replace(out, ready=wrote(self._device)) if isinstance(out, Frame) else out

    def _close(self, complete: bool) -> None:
        self._stage.close()


class SinkRunner(Runner):
    """Hands every frame to a sink and records its latency since it arrived at the source.

    held  frames among `frames` that the networks were spared
    """

    def __init__(
        self, name: str, sink: Sink, clock: Clock, first_error: FirstError, pacer: Pacer | None = None
    ) -> None:
        super().__init__(name, clock, first_error)
        self._sink = sink
        self._pacer = pacer
        self.latency = Meter()
        self.held = 0
        self.ended_ns = 0

    @property
    def notes(self) -> list[str]:
        """What the sink has to tell at the end."""
        return self._sink.notes

    def _work(self) -> None:
        while self._gather():
            frame = self.inlets[0].take()
            begun = self._clock()
            self._sink.write(frame)
            now = self._clock()
            self.meter.record(now - begun)
            self.latency.record(now - frame.stamp.arrived_ns)
            if self._pacer is not None:
                self._pacer.left(frame.stamp, now)
            self.held += bool(frame.stamp.hold)
            self.frames += 1
            self.inlets[0].done()

    def _close(self, complete: bool) -> None:
        self._sink.close(complete)
        self.ended_ns = self._clock()
