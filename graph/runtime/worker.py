"""A worker: stages of a graph that are opened once and connected again for each epoch.

A run in threads has one in its process; a run in several processes has one in each.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import cv2
import torch

from warpfuse.engine.cuda_streams import Stream, new_stream, on
from warpfuse.engine.device import is_card, settle
from warpfuse.graph.links.cancel_token import CancelToken
from warpfuse.graph.links.link import Inlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.metrics.meters import FrameCounts
from warpfuse.graph.metrics.report import Report, counted
from warpfuse.graph.plan.graph_plan import GraphPlan, NodePlan
from warpfuse.graph.plan.pacer import Pacer
from warpfuse.graph.plan.planner import SOUND
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.build import open_stage, settings_of
from warpfuse.graph.runtime.bypass import BypassEntry, BypassExit, SoundEntry
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.failures import Faults
from warpfuse.graph.runtime.lane import Lane
from warpfuse.graph.runtime.loop_lane import LoopLane
from warpfuse.graph.runtime.runner import Given, Runner
from warpfuse.graph.runtime.sink_runner import SinkRunner
from warpfuse.graph.runtime.source_runner import ResumePoint, SourceRunner
from warpfuse.graph.runtime.stage_runner import StageRunner
from warpfuse.graph.runtime.tap import Tapped
from warpfuse.graph.runtime.wiring import Wiring
from warpfuse.stages.controls.settings import control_of


@dataclass
class Worker:
    """The stages of one worker of a plan. Call `open`, for each epoch `connect` and `let_go`, then `close`.

    name     name of the worker in the plan
    stopped  called by the source before each frame: True ends the stream
    faults   collects the failures of stages
    run      name of the run in shared memory
    """

    name: str
    plan: GraphPlan
    context: RunContext
    endpoints: Endpoints
    book: SettingsBook
    faults: Faults
    stopped: Callable[[], bool]
    run: str = "run"
    runners: list[Runner] = field(default_factory=list, init=False)
    lanes: list[Lane] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._nodes = [node for node in self.plan.nodes if node.worker == self.name]
        self._pacer = Pacer() if self.context.config.pace.active else None
        self._cancel: CancelToken | None = None
        self._wiring = Wiring(self.name, self.plan, self.context.config, self.run)
        self._bypasses: dict[str, contextlib.ExitStack] = {}

    def open(self) -> None:
        """Open every stage and load its networks. Raises BadInput; then nothing is left open."""
        # Each lane has a thread. With torch's own thread pool in each of them, there would be more threads than cores.
        torch.set_num_threads(1)
        cv2.setNumThreads(self.context.engines.threads)
        with contextlib.ExitStack() as undo:
            lanes: list[Lane] = []
            for nodes in self.plan.lanes.values():
                if nodes[0].worker == self.name:
                    lanes.append(self._lane(nodes, undo))
            undo.pop_all()
        settle(self.context.config.device)
        self.lanes = lanes
        opened = {runner.stage_name: runner for lane in lanes for runner in lane.runners}
        self.runners = [opened[node.name] for node in self._nodes]

    def connect(self, epoch: int, resume: ResumePoint) -> None:
        """Open the ends of links for an epoch and start every thread."""
        self._cancel = CancelToken()
        inlets, outlets = self._wiring.open(epoch)
        givers = {call.sender for call in self.plan.calls}
        for node, runner in zip(self._nodes, self.runners, strict=True):
            runner.connect(
                [self._feed(feed, inlets) for feed in self.plan.feeds_of(node)],
                [outlets[link.name] for link in self.plan.links_from(node)],
                gives=node.name in givers,
            )
            if isinstance(runner, SourceRunner):
                runner.resume(resume)
        for lane in self.lanes:
            lane.start(self._cancel)

    def let_go(self, deadline_s: float | None = None) -> list[str]:
        """End the epoch: stop every thread and close its links. The stages stay open.

        Returns the stages whose thread was still inside a call at the deadline. Then no link is closed, and only the
        end of the process frees them.
        """
        if self._cancel is None:
            return []
        self._cancel.set()
        until = None if deadline_s is None else time.monotonic() + deadline_s
        for lane in self.lanes:
            lane.join(None if until is None else max(0.0, until - time.monotonic()))
        stuck = [lane.working for lane in self.lanes if lane.is_alive()]
        if stuck:
            return stuck
        for lane in self.lanes:
            lane.disconnect()
        self._cancel.close()
        self._wiring.let_go()
        self._cancel = None
        return []

    def open_bypass(self, name: str, number: int) -> None:
        """Open this worker's ends of a bypass, for the `number`th time. Ends that are still open are closed first."""
        if (opened := self._bypasses.pop(name, None)) is not None:
            opened.close()
        with contextlib.ExitStack() as undo:
            link, (inlets, outlets) = self._wiring.open_bypass(name, number, undo)
            for inlet in inlets.values():
                sink = next(sink for sink in self.sinks if sink.stage_name == link.receiver)
                undo.callback(BypassExit(inlet, sink.hear if link.port == SOUND else sink.show_raw).close)
            for outlet in outlets.values():
                assert self.source is not None
                entry = SoundEntry(outlet) if link.port == SOUND else BypassEntry(outlet)
                undo.callback(entry.close)
                self.source.passing.append(entry)
                undo.callback(self.source.passing.remove, entry)
            self._bypasses[name] = undo.pop_all()

    def pause(self, paused: bool) -> None:
        """Pause the source, or end the pause."""
        for runner in self.runners:
            if isinstance(runner, SourceRunner):
                runner.paused = paused

    def news(self) -> list[str]:
        """The source's messages for the user since the last call. Interrupts a blocked read when the run is stopped."""
        source = self.source.recovering if self.source is not None else None
        if source is None:
            return []
        if self.stopped():
            source.interrupt()
        return source.news()

    def close(self) -> None:
        """Close links, stages, source and sinks. Sinks discard incomplete output."""
        self.let_go()
        while self._bypasses:
            self._bypasses.popitem()[1].close()
        for lane in self.lanes:
            lane.close()
        for runner in self.runners:
            runner.close()
        self._wiring.close()

    @property
    def ended(self) -> bool:
        """Every stage has handled the end of the stream, or a failure that ends the run."""
        return all(runner.ended for runner in self.runners)

    @property
    def busy(self) -> bool:
        """Some thread is running."""
        return any(lane.is_alive() for lane in self.lanes)

    @property
    def alive(self) -> bool:
        """Every thread is running."""
        return all(lane.is_alive() for lane in self.lanes)

    @property
    def source(self) -> SourceRunner | None:
        """The runner of the source; None if another worker has it."""
        return next((r for r in self.runners if isinstance(r, SourceRunner)), None)

    @property
    def sinks(self) -> list[SinkRunner]:
        """The runners of this worker's sinks."""
        return [runner for runner in self.runners if isinstance(runner, SinkRunner)]

    def report(self) -> Report:
        """The figures so far."""
        now = self.context.clock()
        return Report(
            self.name,
            [*(runner.report(now) for runner in self.runners), *(one for lane in self.lanes for one in lane.report())],
            {source.stage_name: source.source_report() for source in (self.source,) if source is not None},
            {sink.stage_name: sink.sink_report() for sink in self.sinks},
        )

    def counts(self, failed: int) -> FrameCounts:
        """The frame counts so far, of a worker that has the source and the sinks: `report` without its histograms.

        failed  frames dropped because a stage raised
        """
        sources = [self.source.source_report()] if self.source is not None else []
        dropped = sum(link.dropped for runner in self.runners for link in runner.links.values())
        return counted(sources, self.sinks[0], dropped, failed)[0]

    def _feed(self, feed: LinkPlan, inlets: dict[str, Inlet]) -> Inlet | Given:
        if feed.name in inlets:
            return inlets[feed.name]
        return Given(feed, next(runner for runner in self.runners if runner.stage_name == feed.sender))

    def _lane(self, nodes: list[NodePlan], undo: contextlib.ExitStack) -> Lane:
        """The stages of a lane, opened. What they allocate belongs to the lane's stream."""
        device, stream = self.context.config.device, new_stream(self.context.config.device)
        with on(stream):
            runners = [self._opened(node, stream, undo) for node in nodes]
        names = {node.name for node in nodes}
        loops = any(feed.delay and {feed.sender, feed.receiver} <= names for feed in self.plan.calls)
        if is_card(device) and (loops or "predict" in names):  # of a stream batch it is in no loop of one frame
            return LoopLane([one for one in runners if isinstance(one, StageRunner)], self.faults, stream, self.context)
        return Lane(runners, self.faults, stream)

    def _opened(self, node: NodePlan, stream: Stream, undo: contextlib.ExitStack) -> Runner:
        runner = self._runner(node, stream)
        undo.callback(runner.close)
        runner.track = self.context.track
        return runner

    def _runner(self, node: NodePlan, stream: Stream) -> Runner:
        config = self.context.config
        if node.role == "source":
            return SourceRunner(
                node.name,
                self.endpoints.source(),
                self.context.clock,
                stopped=self.stopped,
                book=self.book,
                live=self.endpoints.live,
                limit=config.frames if self.endpoints.live else None,
                reopen=self.endpoints.source if self.endpoints.rewind else None,
                tap=self.endpoints.taps.get("source"),
                framing=self.context.framing,
            )
        judge, leaves = self._pacing(node)
        if node.role == "sink":
            sink = self.endpoints.sink(node.about)
            return SinkRunner(
                node.name,
                sink,
                self.context.clock,
                judge,
                book=self.book,
                fps=config.fps,
                live=self.endpoints.live,
                limit=config.frames if self.endpoints.live else None,
                stopped=self.stopped,
            )
        stage = open_stage(node.kind, self.context, node.name)
        taps, control = self.endpoints.taps, control_of(node.name)
        if node.name in taps:
            stage = Tapped(stage, taps[node.name])
        elif control is not None and "control" in taps:
            stage = Tapped(stage, partial(taps["control"], control))
        return StageRunner(
            node.name,
            stage,
            self.context.clock,
            book=self.book,
            settings_of=settings_of(node.kind, self.context.prompts, node.name),
            pacer=judge,
            stream=stream,
            leaves=leaves,
        )

    def _pacing(self, node: NodePlan) -> tuple[Pacer | None, bool]:
        """The pacer of a stage, if it has one, and whether the stage is where frames count as shown.

        That is the first sink, or `download` where another worker has the sinks.
        """
        here = {n.name for n in self._nodes}
        last = "sink_1" if "sink_1" in here else "download"
        if self._pacer is None or "upload" not in here:
            return None, False
        return (self._pacer, node.name == last) if node.name in ("upload", last) else (None, False)


def snapshot(worker: Worker) -> bytes:
    """The picture that the worker's first sink showed last, as a PNG file; empty before the first."""
    for sink in worker.sinks:
        if (rgb := sink.last) is not None:
            _, png = cv2.imencode(".png", rgb[:, :, [2, 1, 0, 3][: rgb.shape[2]]])
            return bytes(png.tobytes())
    return b""
