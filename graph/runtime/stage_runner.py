"""The runner of a stage between the source and the sinks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from warpfuse.engine import device as card
from warpfuse.engine.cuda_streams import DeviceClock, NoStream, Stream, reads, wrote
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.pacer import Pacer
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.runner import Clock, Given, Runner
from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import Frame, Stamp
from warpfuse.stages.interim import Interim
from warpfuse.stages.stage import Delaying, Stage

SettingsOf = Callable[[GraphConfig, Interim | None], Any]
"""Gives a stage's settings, from a configuration with the present numbers, and from prompts that are changing."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A call of a stage that can be made. inputs: frames, or from which stage of the lane one comes in this frame."""

    stamp: Stamp
    inputs: Mapping[str, Any]


class StageRunner(Runner):
    """Calls a stage for every frame and delivers its output.

    settings_of  picks the stage's settings out of a configuration; None for a stage without settings
    pacer        decides before the call which frames are held. The meter leaves held frames out
    leaves       the stage is the last one here: tell the pacer that its frames are shown, instead of asking it
    stream       the CUDA stream of the lane, on a card
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        clock: Clock,
        *,
        book: SettingsBook,
        settings_of: SettingsOf | None,
        pacer: Pacer | None = None,
        stream: Stream | None = None,
        leaves: bool = False,
    ) -> None:
        super().__init__(name, clock)
        self._stage = stage
        self._stream = stream or NoStream()
        self._device_clock = None if isinstance(self._stream, NoStream) else DeviceClock(self._stream)
        self._pacer = pacer
        self._book = book
        self._settings_of = settings_of
        self._leaves = leaves
        self._config = book[book.newest]
        self._holding: tuple[int, Interim | None] = book.newest, None
        self._stamped_by = ""

    def connect(self, feeds: Sequence[Inlet | Given], outlets: Sequence[Outlet], *, gives: bool = False) -> None:
        """Attach the links of an epoch. Frames that the stage still holds from the last epoch are dropped."""
        super().connect(feeds, outlets, gives=gives)
        self._stamped_by = next(feed.plan.port for feed in feeds if not feed.plan.delay)
        if isinstance(self._stage, Delaying):
            self._stage.reset()

    def fire(self) -> bool:
        """Call the stage with the next frame of every input."""
        firing = self.take()
        if firing is None:
            return False
        self.give(firing, self.call(firing))
        return True

    def take(self) -> Firing | None:
        """Take the next frame of every input, and the settings that it came with. None at the end of the stream.

        Those stages of the lane that give it an input in this frame have taken theirs; they need not be called yet.
        """
        if not self.gather():
            return None
        inputs: dict[str, Any] = {}
        for feed in self._feeds:
            if isinstance(feed, Inlet):
                inputs[feed.plan.port] = self._read(feed)
            else:
                inputs[feed.plan.port] = feed.sender.given if feed.plan.delay else feed
        first = inputs[self._stamped_by]
        stamp = first.sender.stamp if isinstance(first, Given) else first.stamp
        assert isinstance(stamp, Stamp)
        if (stamp.settings, stamp.interim) != self._holding:
            self._holding = stamp.settings, stamp.interim
            self._config = self._book.shown(stamp.settings, stamp.interim)
            if self._settings_of is not None:
                self._stage.update(self._settings_of(self._config, stamp.interim))
        self.at = stamp.seq
        if self._pacer is not None and not self._leaves:
            inputs[self._stamped_by] = judged = self._pacer.judge(first, self._config.pace, self._clock())
            stamp = judged.stamp
        self.stamp = stamp
        return Firing(stamp, inputs)

    def call(self, firing: Firing) -> Any:
        """Call the stage, and record its time."""
        stamp, begun = firing.stamp, self._begin(firing.stamp.seq)
        inputs = {port: x.sender.given if isinstance(x, Given) else x for port, x in firing.inputs.items()}
        called = self._stage.held if stamp.hold else self._stage
        if self._device_clock is not None:
            out = self._timed(self._device_clock, called, inputs, metered=not stamp.hold)
            self._end(stamp.seq, begun)
            return out
        out = called(**inputs)
        took_ns = self._end(stamp.seq, begun)
        if not stamp.hold:
            self.meter.record(took_ns)
        return out

    def give(self, firing: Firing, out: Any) -> None:
        """Hand on what the stage gave."""
        stamp = firing.stamp
        if self._pacer is not None and self._leaves:
            self._pacer.left(stamp, self._clock())
        self.frames += 1
        self.passed = stamp.seq
        out = owned(out)  # the output may contain borrowed memory, which is valid until `done` only
        self.given = out if self._gives else None
        for inlet in self.inlets:
            inlet.done()
        if out is not None and self.outlets:
            self._deliver(out.stamp.seq, self._written(out))

    def drain(self) -> None:
        """Deliver the frames that a delaying stage still holds."""
        if isinstance(self._stage, Delaying):
            while (late := self._stage.flush()) is not None:
                self._deliver(late.stamp.seq, self._written(late))

    def _timed(
        self, clock: DeviceClock, called: Callable[..., Any], inputs: Mapping[str, Any], *, metered: bool
    ) -> Any:
        """Call the stage on a card, and record its time there.

        The call only launches work. The time is measured on the card, and known some frames later.
        """
        if metered:
            clock.begin()
        with card.marked(self.stage_name):
            out = called(**inputs)
        if metered:
            clock.end()
        for duration_ns in clock.over():
            self.meter.record(duration_ns)
        return out

    def _read(self, inlet: Inlet) -> Any:
        """The next frame of a link. On a card the lane's stream waits until its tensors are written."""
        frame = self._take(inlet)
        if isinstance(frame, Frame) and frame.ready is not None:
            reads(frame.tensors.values(), frame.ready, self._stream)
        return frame

    def _written(self, out: Any) -> Any:
        """The output for other lanes. On a card it gets the event after which its tensors are written."""
        if isinstance(self._stream, NoStream) or not isinstance(out, Frame):
            return out
        return replace(out, ready=wrote(self._stream.device))

    @property
    def stage(self) -> Stage:
        """The stage that it calls."""
        return self._stage

    def close(self) -> None:
        """Close the stage."""
        self._stage.close()
