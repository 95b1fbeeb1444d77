"""The lanes of loop and sampler on a card: their stages are replayed as one CUDA graph where they can be."""

from collections.abc import Sequence

from warpfuse.engine.cuda_streams import DeviceClock, NoStream, Stream
from warpfuse.graph.metrics.meters import Meter
from warpfuse.graph.metrics.report import RunnerReport
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.failures import Faults
from warpfuse.graph.runtime.lane import Lane
from warpfuse.graph.runtime.runner import Given
from warpfuse.graph.runtime.stage_runner import Firing, StageRunner
from warpfuse.stages.frame import Frame
from warpfuse.stages.loop import Loop, LoopCall

LOOP = "loop"
"""The name under which the time of replayed frames is reported: inside a graph of several stages none has a time of its
own. The time of a lone stage is its own."""


class LoopLane(Lane):
    """A lane that takes the frames of all its stages first, and then replays them or calls one after the other."""

    def __init__(self, runners: Sequence[StageRunner], faults: Faults, stream: Stream, context: RunContext) -> None:
        super().__init__(runners, faults, stream)
        assert not isinstance(stream, NoStream)
        self._stages = list(runners)
        self._context = context
        self._clock = DeviceClock(stream)
        self._meter = Meter() if len(self._stages) > 1 else self._stages[0].meter
        self._replayed = 0
        self._loop: Loop | None = None

    def report(self) -> list[RunnerReport]:
        """The time of replayed frames, once there are any."""
        if not self._replayed or len(self._stages) == 1:
            return []
        last = self._stages[-1]
        return [RunnerReport(LOOP, self._replayed, last.passed, last.ended, 0, self._meter.encode(), {})]

    def close(self) -> None:
        """Free the graphs."""
        if self._loop is not None:
            self._loop.close()

    def _pass_frame(self) -> bool:
        firings = []
        for runner in self._stages:
            self._working = runner
            firing = runner.take()
            if firing is None:
                self._check_end(runner)
                return False
            firings.append(firing)
        self._working = self._stages[0]
        given = self._replay(firings)
        for i, (runner, firing) in enumerate(zip(self._stages, firings, strict=True)):
            self._working = runner
            runner.give(firing, runner.call(firing) if given is None else given[i])
        return True

    def _replay(self, firings: Sequence[Firing]) -> list[Frame | None] | None:
        if self._loop is None:
            wanted = [i for i, runner in enumerate(self._stages) if runner.outlets or self._is_late(runner)]
            self._loop = Loop(
                [one.stage for one in self._stages], wanted, self._context.config.device, self._context.say
            )
        numbers = {id(runner): i for i, runner in enumerate(self._stages)}
        calls = [
            LoopCall(
                one.stamp, {p: numbers[id(x.sender)] if isinstance(x, Given) else x for p, x in one.inputs.items()}
            )
            for one in firings
        ]
        begun = self._context.clock()
        self._clock.begin()
        given = self._loop(calls)
        if given is None:
            return None
        self._clock.end()
        for duration_ns in self._clock.over():
            self._meter.record(duration_ns)
        self._replayed += 1
        if self._context.track is not None:
            name = LOOP if len(self._stages) > 1 else self._stages[0].stage_name
            self._context.track.add(name, firings[0].stamp.seq, begun, self._context.clock())
        return given

    def _is_late(self, sender: StageRunner) -> bool:
        """Whether a stage of the lane takes what this one gave for the frame before."""
        return any(feed.sender is sender and feed.plan.delay for runner in self._stages for feed in runner.given_by)
