"""Runs a stage between the source and the sinks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from warpfuse.engine.streams import DeviceClock, NoStream, new_stream, on, reads, wrote
from warpfuse.graph.faults import Faults
from warpfuse.graph.halt import Halt
from warpfuse.graph.link import Inlet, Outlet
from warpfuse.graph.pacer import Pacer
from warpfuse.graph.runner import Clock, Runner
from warpfuse.graph.settings import SettingsBook
from warpfuse.stages.frame import Frame
from warpfuse.stages.lent import kept
from warpfuse.stages.stage import Delaying, Stage


class StageRunner(Runner):
    """Calls a stage for every frame, and delivers what is ready.

    settings_of  picks the stage's own settings out of a version of the book; None for a stage that has none
    pacer        judges the frames before the stage sees them; the meter leaves out those that are held
    leaves       frames that come out of here count as shown for the pacer, instead of being judged
    device       where the stage works: on a card, on a CUDA stream of its own
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        clock: Clock,
        faults: Faults,
        *,
        book: SettingsBook,
        settings_of: Callable[[Any], Any] | None,
        pacer: Pacer | None = None,
        device: str = "cpu",
        leaves: bool = False,
    ) -> None:
        super().__init__(name, clock, faults)
        self._stage = stage
        self._device = device
        self._stream = new_stream(device)
        self._device_clock = None if isinstance(self._stream, NoStream) else DeviceClock()
        self._pacer = pacer
        self._book = book
        self._settings_of = settings_of
        self._leaves = leaves
        self._version = book.newest

    def connect(self, inlets: Sequence[Inlet], outlets: Sequence[Outlet], halt: Halt | None = None) -> None:
        """Attach the links of an epoch; what a stage keeps back belongs to the one before and is dropped."""
        super().connect(inlets, outlets, halt)
        if isinstance(self._stage, Delaying):
            self._stage.reset()

    def _work(self) -> None:
        with on(self._stream):
            self._call_for_every_frame()
            if isinstance(self._stage, Delaying):
                while (late := self._stage.flush()) is not None:
                    self._deliver(late.stamp.seq, self._written(late))

    def _call_for_every_frame(self) -> None:
        leading = next(i for i, inlet in enumerate(self.inlets) if not inlet.plan.delay)
        while self._gather():
            frames = [self._read(self._take(inlet)) for inlet in self.inlets]
            stamp = frames[leading].stamp
            if stamp.settings != self._version:
                self._version = stamp.settings
                if self._settings_of is not None:
                    self._stage.update(self._settings_of(self._book[stamp.settings]))
            with self._call(stamp.seq) as begun:
                if self._pacer is not None and not self._leaves:
                    frames[0] = self._pacer.judge(frames[0], self._book[stamp.settings].pace, begun)
                out = self._timed(frames, begun, metered=not stamp.hold)
            if self._pacer is not None and self._leaves:
                self._pacer.left(stamp, self._clock())
            self.frames += 1
            self.passed = stamp.seq
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
        with torch.cuda.nvtx.range(self.stage_name):
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

    def close(self) -> None:
        """Close the stage."""
        self._stage.close()
