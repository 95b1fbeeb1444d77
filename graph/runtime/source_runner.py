"""The runner of the source. It reads, numbers and stamps frames."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from warpfuse.graph.metrics.report import SourceReport
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.capture import Capture
from warpfuse.graph.runtime.runner import Clock, Runner
from warpfuse.graph.runtime.tap import Tap
from warpfuse.stages.frame import CardFrame, RawFrame, Stamp
from warpfuse.stages.geometry.framing import Framing, PixelRect
from warpfuse.stages.stage import Recovering, Source

Rgb = npt.NDArray[np.uint8]

_TICK_MS = 100  # interval at which a stop or the end of a pause is noticed while no frame comes


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where the source resumes in a new epoch.

    first     number of the first frame. A file is read again from there, a live source continues its numbers there
    without   frames not to be sent again, because a stage failed on them
    since_ns  clock at the arrival of the run's first frame; 0 in the first epoch. Times of a live source start there
    done      number of frames that every sink has
    """

    first: int = 0
    without: frozenset[int] = frozenset()
    since_ns: int = 0
    done: int = 0

    @property
    def again(self) -> bool:
        """This is not the first epoch."""
        return self.since_ns > 0


class SourceRunner(Runner):
    """Reads frames, stamps them with the clock and the version of the settings, and sends them.

    stopped      called before each frame: True ends the stream
    reopen       opens the source at its beginning, for a file that is read again; None: it cannot be read again
    live         frames cannot wait: the newest is kept, and frames replaced before they are sent are counted as dropped
    limit        number of frames after which a live source ends
    tap          called with every frame that is sent
    framing      makes frames of the source's pictures; None: they are frames already
    paused       set it to pause: a file waits, frames of a live source are dropped
    passing      called with every frame of a live source, also between epochs, by the thread that reads it
    started_ns   clock when the first frame was asked for; 0 before
    passed_over  frames dropped during a pause
    late         frames dropped because a newer one came
    since_ns     clock at the arrival of the run's first frame
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
        framing: Framing | None = None,
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
        self._framing = framing
        self._mirrored: bool | None = None
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
        """Number of frames of a live source that were dropped: too late, or during a pause."""
        return self.passed_over + self.late

    @property
    def reached(self) -> int:
        """Number of the next frame."""
        return self._next

    @property
    def warning(self) -> str | None:
        """The source's warning for the user."""
        return self._source.warning

    def source_report(self) -> SourceReport:
        """The figures of the source."""
        source = self.recovering
        figures, lost = (source.report(), source.lost) if source is not None else ({}, None)
        reason = None if lost is None else str(lost)
        times = self.started_ns, self.since_ns
        return SourceReport(self.reached, self.dropped, *times, self.warning, figures, reason, self.passed_over)

    @property
    def recovering(self) -> Recovering | None:
        """The source, if it is one that reconnects by itself; else None."""
        return self._source if isinstance(self._source, Recovering) else None

    def resume(self, at: ResumePoint) -> None:
        """Set where the next epoch begins, before its thread starts. A file that was read further is opened again."""
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
        """Read a frame and send it."""
        self.started_ns = self.started_ns or self._clock()
        return self._next_in_file() if self._capture is None else self._newest(self._capture)

    def _next_in_file(self) -> bool:
        """Send the next frame of a file, when the graph has room for it."""
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
            took_ns = self._end(-1, begun)
            if raw is None:
                return False
            seq = raw.stamp.seq
            if seq < self._next:
                continue  # a file that was opened again is skipped up to the resume point
            if seq in self._without:
                self._next = seq + 1
                continue
            self.meter.record(took_ns)
            now = raw.stamp.arrived_ns or self._clock()
            self.since_ns = self.since_ns or now
            self._take_room()
            self._send(raw.stamped(replace(raw.stamp, arrived_ns=now)))
            while any(outlet.waiting for outlet in self.outlets):  # the next `read` blocks, and would delay the credit
                self._poller.wait()
                self._poller.check()
            return True
        return False

    def _newest(self, capture: Capture) -> bool:
        """Send the newest frame of a live source when the graph has room for it. Older frames are dropped."""
        capture.start()
        while not self._stopped() and self._left != 0:
            self._poller.check()
            if not self._has_room:
                self._poller.wait_for_any(_TICK_MS)  # not for frames: a newer one may come until there is room
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
            self._send(raw.stamped(stamp))
            self._left = None if self._left is None else self._left - 1
            return True
        return False

    @property
    def _has_room(self) -> bool:
        """Another frame may enter the graph. True if the frames in flight are not limited."""
        return all(inlet.ready for inlet in self.inlets)

    def _take_room(self) -> None:
        for inlet in self.inlets:
            inlet.take()
            inlet.done()

    def _pass_by(self, frame: RawFrame) -> None:
        if self.paused:  # the sink must show a still picture, not the source
            return
        if frame.sound:
            delay_ns = round(self._book[self._book.newest].sound_delay * 1e9)
            shift_ns = self._shift(frame.stamp) + delay_ns
            frame = replace(frame, sound=tuple((shift_ns + sound_ns, nut) for sound_ns, nut in frame.sound))
        if entries := tuple(self.passing):
            rgb = self._framed(frame.rgb, self._book[self._book.newest].mirror)
            frame = RawFrame(frame.stamp, rgb, frame.sound)
        for entry in entries:
            entry(frame)

    def _frame_of(self, raw: RawFrame, mirror: bool) -> RawFrame:
        if isinstance(raw, CardFrame) and not mirror:
            size = raw.decoded.size
            part = PixelRect(0, 0, *size) if self._framing is None else self._framing.part(size)
            if part is not None:
                return CardFrame(raw.stamp, raw.decoded.part(part.left, part.top, part.width, part.height))
        return RawFrame(raw.stamp, self._framed(raw.rgb, mirror))

    def _framed(self, rgb: Rgb, mirror: bool) -> Rgb:
        return rgb if self._framing is None else self._framing(rgb, mirror=mirror)

    def _shift(self, stamp: Stamp) -> int:
        """Offset from a source's times to the run's, ns. A source that was started again counts from 0 once more.

        The first frame decides. Thread-safe: the reading and the sending thread both call it.
        """
        with self._shifting:
            if self._shift_ns is None:
                since_ns = self.since_ns or stamp.arrived_ns
                self._shift_ns = stamp.arrived_ns - since_ns - stamp.pts_ns if self._base else 0
            return self._shift_ns

    def _send(self, raw: RawFrame) -> None:
        seq = raw.stamp.seq
        settings, interim = self._book.stamped(seq, raw.stamp.pts_ns)
        mirrored = self._book[settings].mirror
        turned = mirrored != (mirrored if self._mirrored is None else self._mirrored)  # nothing is where it was
        stamp = replace(
            raw.stamp,
            settings=settings,
            interim=interim,
            discontinuity=raw.stamp.discontinuity or self._discontinuity or turned,
        )
        self._discontinuity, self._mirrored = False, mirrored
        self.frames += 1
        self._next = seq + 1
        self.passed = seq
        frame = self._frame_of(raw, mirrored).stamped(stamp)
        if self._tap is not None:
            self._tap(frame)
        self._deliver(seq, frame)
