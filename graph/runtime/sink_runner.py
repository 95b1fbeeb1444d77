"""The runner of a sink. It writes every frame once and in order, over all epochs."""

import contextlib
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from warpfuse.graph.metrics.meters import Meter
from warpfuse.graph.metrics.report import SinkReport
from warpfuse.graph.plan.pacer import Pacer
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.rate import AsTheyCome, Paced, Rate, Resampled
from warpfuse.graph.runtime.runner import Clock, Runner
from warpfuse.stages.frame import RawFrame, SoundPiece, Stamp
from warpfuse.stages.stage import Bridging, Hearing, Sink

_PIECES = 4096  # most pieces of sound that wait for the next picture; a source's picture brings one


class SinkRunner(Runner):
    """Hands every frame to a sink and records its latency since its arrival at the source.

    held      frames among `frames` for which no network ran
    shown     number of the newest frame written, -1 before the first; frames up to it are not written again
    latency   from a frame's arrival at the source to its hand-over to the sink
    age       how old a picture had become when the next replaced it; latency does not show that when frames are dropped
    control   from a change of settings to the hand-over of the first picture made with it
    book      tells when each version of the settings was asked for
    fps       hand frames over at this constant rate; None: as they come
    live      the rate follows the clock instead of the presentation times
    limit     the sink is closed as complete after this many frames, even if other sinks still need some
    stopped   tells whether the run was stopped. A sink without a frame is then not completed
    complete  the sink is closed, and its output, if any, is complete
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        clock: Clock,
        pacer: Pacer | None = None,
        *,
        book: SettingsBook,
        fps: Fraction | None = None,
        live: bool = False,
        limit: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(name, clock)
        self._rate: Rate = AsTheyCome(self._hand_over)
        self._bridge = sink if isinstance(sink, Bridging) and sink.raw_wanted else None
        if fps is not None and self._bridge is None:  # a bridging sink keeps the rate itself, and must notice gaps
            self._rate = Paced(self._hand_over, fps, clock) if live else Resampled(self._hand_over, fps)
        self._sink = sink
        self._pacer = pacer
        self._left, self._stopped = limit, stopped
        self.latency = Meter()
        self.age = Meter()
        self.control = Meter()
        self.held = 0
        self.shown = -1
        self.begun_ns = self.first_ns = self.ended_ns = 0
        self._book, self._version = book, book.newest
        self.complete = False
        self._closed = False
        self._arrived_ns = 0
        self._heard: deque[SoundPiece] = deque(maxlen=_PIECES)
        self._zero_ns: int | None = None
        self._last: npt.NDArray[np.uint8] | None = None

    @property
    def notes(self) -> list[str]:
        """The sink's notes for the user."""
        return self._sink.notes

    @property
    def repeated(self) -> int:
        """Number of times a picture was handed over again."""
        return self._rate.repeated

    def sink_report(self) -> SinkReport:
        """The figures of the sink."""
        counts = self.frames, self.held, self.shown, self.repeated, self.ended_ns
        latency, age = self.latency.encode(), self.age.encode()
        times = self.begun_ns, self.first_ns
        return SinkReport(*counts, self.complete, latency, age, self.notes, 0, *times, self.control.encode())

    @property
    def last(self) -> npt.NDArray[np.uint8] | None:
        """The picture shown last, uint8 RGB [h, w, 3], a copy; None before the first."""
        return None if self._last is None else self._last.copy()

    def show_raw(self, frame: RawFrame) -> None:
        """Show a picture of the source that came by the bypass. Called by one thread."""
        if self._bridge is not None and not self._closed:
            self._bridge.write_raw(frame)

    def hear(self, piece: SoundPiece) -> None:
        """Take a piece of the source's sound that came by the bypass. It waits for the next picture. Called by one
        thread."""
        if isinstance(self._sink, Hearing) and not self._closed:
            self._heard.append(SoundPiece(piece.stamp, piece.nut.copy()))

    def close(self) -> None:
        """Close the sink. Incomplete output is discarded."""
        self._close_sink(complete=False)

    def fire(self) -> bool:
        """Hand the next frame to the sink."""
        if not self.gather():
            return False
        frame: RawFrame = self._take(self.inlets[0])
        if frame.stamp.seq > self.shown and not self._closed:
            self._show(frame)
        self.inlets[0].done()
        return True

    def _show(self, frame: RawFrame) -> None:
        if self._zero_ns is None:  # a constant rate by the clock starts at 0 with the first picture
            self._zero_ns = frame.stamp.pts_ns if isinstance(self._rate, Paced) else 0
        self._pass_sound()
        begun = self._begin(frame.stamp.seq)
        self._rate.take(frame)
        self._end(frame.stamp.seq, begun)
        if self._pacer is not None:
            self._pacer.left(frame.stamp, self._clock())
        self.held += bool(frame.stamp.hold)
        self.shown = self.passed = frame.stamp.seq
        self._left = None if self._left is None else self._left - 1
        if self._left == 0:
            self._close_sink(complete=True)

    def _pass_sound(self) -> None:
        while self._heard and isinstance(self._sink, Hearing):
            self._sink.hear(self._heard.popleft().earlier(self._zero_ns or 0))

    def _hand_over(self, frame: RawFrame) -> None:
        """Write a frame and record the times. Called by this thread or the rate's."""
        stamp, begun = frame.stamp, self._clock()
        self._sink.write(frame)
        now = self._clock()
        self.meter.record(now - begun)
        if stamp.arrived_ns != self._arrived_ns:
            self.latency.record(now - stamp.arrived_ns)
        self._time_controls(stamp, now)
        self.begun_ns = self.begun_ns or stamp.arrived_ns
        self.first_ns = self.first_ns or now
        if self._arrived_ns:
            self.age.record(now - self._arrived_ns)
        self._arrived_ns, self.ended_ns = stamp.arrived_ns, now
        self._keep(frame.rgb)
        self.frames += 1

    def _time_controls(self, stamp: Stamp, now: int) -> None:
        """Record how long ago the settings were asked for that this picture is the first to show. A held one shows none
        of them: it is the last picture again."""
        if stamp.settings == self._version or stamp.hold:
            return
        for version in range(self._version + 1, stamp.settings + 1):
            if asked_ns := self._book.asked_ns(version):
                self.control.record(now - asked_ns)
        self._version = stamp.settings

    def _keep(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Keep a copy of the picture for `last`; its slot will be filled again."""
        if self._last is None or self._last.shape != rgb.shape:
            self._last = np.empty_like(rgb)
        np.copyto(self._last, rgb)

    def finish(self, complete: bool) -> None:
        """Close the sink. Its output is completed, or discarded if not `complete`."""
        self._close_sink(complete and not (self._stopped() and self.shown < 0))
        self.complete = self.complete or complete  # also when there was no output: no more frames come

    def _close_sink(self, complete: bool) -> None:
        if not self._closed:
            self._closed = True
            self._pass_sound()
            with contextlib.nullcontext() if complete else contextlib.suppress(Exception):
                self._rate.end()
            self._sink.close(complete)
            self.complete = complete
            self.ended_ns = self._clock()
