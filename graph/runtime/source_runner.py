"""Runs the source: reads, stamps and numbers frames."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from warpfuse.graph.metrics.report import SourceReport
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.capture import Capture
from warpfuse.graph.runtime.runner import Clock, Runner
from warpfuse.graph.runtime.tap import Tap
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import Recovering, Source

_TICK_MS = 100  # how soon a stop or the end of a pause is seen while no frame comes


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where the source goes on in a new epoch.

    first     number of the first frame; a file is read again from there, a live source numbers on from there
    without   frames not to be sent again: a stage failed at them
    since_ns  clock at which the run's first frame arrived; 0 in the first epoch. Times of a live source count from it
    done      frames that every sink has
    """

    first: int = 0
    without: frozenset[int] = frozenset()
    since_ns: int = 0
    done: int = 0

    @property
    def again(self) -> bool:
        """It is not the beginning."""
        return self.since_ns > 0


class SourceRunner(Runner):
    """Reads frames, stamps them with the clock and the version of the settings, and sends them on.

    stopped  asked before each frame: True ends the stream
    reopen   the source from its beginning, for a file that is read again; none: it cannot be
    live     frames cannot wait: the newest is kept, and what nobody had time for is dropped and counted
    limit    of a live source: so many frames come to the sinks, then it ends
    tap      looks at every frame that is sent
    paused   set it: a file waits, frames of a live source are dropped
    passing  called with every frame of a live source, in each epoch and between them, by the thread that reads it
    since_ns  clock at the arrival of the run's first frame
    """

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Clock,
        *,
        stopped: Callable[[], bool],
        book: SettingsBook,
        live: bool = False,
        limit: int | None = None,
        reopen: Callable[[], Source] | None = None,
        tap: Tap | None = None,
    ) -> None:
        super().__init__(name, clock)
        self.paused = False
        self.passing: list[Callable[[RawFrame], None]] = []
        self.started_ns = 0
        self.passed_over = 0
        self.late = 0
        self._source = source
        self._stopped = stopped
        self._book = book
        self._limit, self._left = limit, limit
        self._reopen = reopen
        self._tap = tap
        self._capture = Capture(source, clock, self._pass_by) if live else None
        self._next = 0
        self._base = 0
        self.since_ns = 0
        self._without: frozenset[int] = frozenset()
        self._discontinuity = False
        self._shift_ns: int | None = None
        self._shifting = threading.Lock()
        self._closed = False

    @property
    def dropped(self) -> int:
        """Frames of a live source that nobody had time for, or that came during a pause."""
        return self.passed_over + self.late

    @property
    def reached(self) -> int:
        """Frames that have come from the source: the number of the next one."""
        return self._next

    @property
    def warning(self) -> str | None:
        """What the source has to tell at the end."""
        return self._source.warning

    def source_report(self) -> SourceReport:
        """What only a source counts."""
        own = self.recovering
        figures, lost = (own.report(), own.lost) if own is not None else ({}, None)
        told = None if lost is None else str(lost)
        times = self.started_ns, self.since_ns
        return SourceReport(self.reached, self.dropped, *times, self.warning, figures, told, self.passed_over)

    @property
    def recovering(self) -> Recovering | None:
        """The source, if it is one that breaks and comes back."""
        return self._source if isinstance(self._source, Recovering) else None

    def resume(self, at: ResumePoint) -> None:
        """Where the next epoch begins. Before `start`. A file that was read past it is opened anew."""
        self._discontinuity = at.again
        self._without = at.without
        self.since_ns = at.since_ns
        self._left = None if self._limit is None else max(0, self._limit - at.done)
        if self._capture is not None:
            if self._next == 0:
                self._base = self._next = at.first
        elif at.first < self._next and self._reopen is not None:
            self._source.close()
            self._source = self._reopen()
            self._next = at.first
        else:
            self._next = at.first

    def close(self) -> None:
        """Close the source."""
        if self._closed:
            return
        self._closed = True
        if self._capture is not None:
            self._capture.close()
        else:
            self._source.close()

    def fire(self) -> bool:
        """Read a frame and send it on."""
        self.started_ns = self.started_ns or self._clock()
        return self._next_in_file() if self._capture is None else self._newest(self._capture)

    def _next_in_file(self) -> bool:
        """Every frame, waiting for the graph."""
        while not self._stopped():
            if self.paused:
                self._poller.wait(_TICK_MS)
                self._poller.check()
                continue
            if not self._has_room:
                self._poller.wait_for_any(_TICK_MS)
                self._poller.check()
                continue
            begun = self._begin(-1)
            raw = self._source.read()
            self._end(-1, begun)
            if raw is None:
                return False
            seq = raw.stamp.seq
            if seq < self._next:
                continue  # a file that is read again, up to where it goes on
            if seq in self._without:
                self._next = seq + 1
                continue
            self.meter.record(self._clock() - begun)
            now = raw.stamp.arrived_ns or self._clock()
            self.since_ns = self.since_ns or now
            self._take_room()
            self._send(RawFrame(replace(raw.stamp, arrived_ns=now), raw.rgb))
            while any(outlet.waiting for outlet in self.outlets):  # in `read` the credit for it would not be seen
                self._poller.wait()
                self._poller.check()
            return True
        return False

    def _newest(self, capture: Capture) -> bool:
        """The newest frame whenever one has left the graph and made room; older ones are dropped."""
        capture.start()
        while not self._stopped() and self._left != 0:
            self._poller.check()
            if not self._has_room:
                self._poller.wait_for_any(_TICK_MS)  # the frame that will have room is one that has yet to come
                continue
            raw = capture.take()
            if raw is None:
                if capture.ended:
                    if capture.error is not None:
                        raise capture.error
                    return False
                self._poller.wait_for_any(_TICK_MS, fd=capture.fd)
                continue
            self.since_ns = self.since_ns or raw.stamp.arrived_ns
            shift_ns = self._shift(raw.stamp)
            stamp = replace(raw.stamp, seq=raw.stamp.seq + self._base, pts_ns=raw.stamp.pts_ns + shift_ns)
            self.late += stamp.seq - self._next
            if self.paused:
                self.passed_over += 1
                self._next = stamp.seq + 1
                continue
            self._take_room()
            self._send(RawFrame(stamp, raw.rgb))
            self._left = None if self._left is None else self._left - 1
            return True
        return False

    @property
    def _has_room(self) -> bool:
        """Fewer frames are on their way than may be; always where that is not limited."""
        return all(inlet.ready for inlet in self.inlets)

    def _take_room(self) -> None:
        for inlet in self.inlets:
            inlet.take()
            inlet.done()

    def _pass_by(self, frame: RawFrame) -> None:
        if self.paused:  # a pause is no fault: the picture is to stand still
            return
        if frame.sound:
            shift_ns = self._shift(frame.stamp)
            frame = replace(frame, sound=tuple((shift_ns + own_ns, nut) for own_ns, nut in frame.sound))
        for entry in tuple(self.passing):
            entry(frame)

    def _shift(self, stamp: Stamp) -> int:
        """What puts the times of a source that was begun again onto the run's clock: its own start at 0 once more.

        The first frame decides. It is asked by the thread that reads and by the one that sends."""
        with self._shifting:
            if self._shift_ns is None:
                since_ns = self.since_ns or stamp.arrived_ns
                self._shift_ns = stamp.arrived_ns - since_ns - stamp.pts_ns if self._base else 0
            return self._shift_ns

    def _send(self, raw: RawFrame) -> None:
        seq = raw.stamp.seq
        settings, interim = self._book.stamped(seq, raw.stamp.pts_ns)
        stamp = replace(
            raw.stamp,
            settings=settings,
            interim=interim,
            discontinuity=raw.stamp.discontinuity or self._discontinuity,
        )
        self._discontinuity = False
        self.frames += 1
        self._next = seq + 1
        self.passed = seq
        frame = RawFrame(stamp, raw.rgb)
        if self._tap is not None:
            self._tap(frame)
        self._deliver(seq, frame)
