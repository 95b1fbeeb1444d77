"""Some stages of a graph: opened once, connected anew for each epoch. The same object in this process or in another."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import torch

from warpfuse.engine.streams import settle
from warpfuse.graph.build import Materials, open_stage, settings_of
from warpfuse.graph.bypass import BypassEntry, BypassExit
from warpfuse.graph.cores import leaves, loop_of
from warpfuse.graph.ends import Ends
from warpfuse.graph.faults import Faults
from warpfuse.graph.halt import Halt
from warpfuse.graph.pacer import Pacer
from warpfuse.graph.plan import GraphPlan, NodePlan
from warpfuse.graph.report import Report, report
from warpfuse.graph.runner import Clock, Runner
from warpfuse.graph.settings import SettingsBook
from warpfuse.graph.sink_runner import SinkRunner
from warpfuse.graph.source_runner import Resume, SourceRunner
from warpfuse.graph.stage_runner import StageRunner
from warpfuse.graph.tap import Tapped
from warpfuse.graph.trace import Track
from warpfuse.graph.wiring import Wiring


@dataclass
class Worker:
    """The stages of one worker of a plan. `open`, then for each epoch `connect` and `let_go`, then `close`.

    name     of the worker in the plan
    stopped  asked by the source before each frame: True ends the stream
    faults   where stages that raise are reported
    run      name of the run in shared memory
    core     that the threads of the loop keep to, None: to none
    """

    name: str
    plan: GraphPlan
    materials: Materials
    ends: Ends
    book: SettingsBook
    faults: Faults
    stopped: Callable[[], bool]
    clock: Clock = time.monotonic_ns
    track: Track | None = None
    run: str = "run"
    core: int | None = None
    runners: list[Runner] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._nodes = [node for node in self.plan.nodes if node.worker == self.name]
        self._pacer = Pacer() if self.materials.config.pace.active else None
        self._halt: Halt | None = None
        messengers = self.core if leaves(self.plan, self.name) else None
        self._wiring = Wiring(self.name, self.plan, self.materials.config, self.run, messengers)
        self._bypasses: dict[str, contextlib.ExitStack] = {}

    def open(self) -> None:
        """Open every stage: networks are loaded here. Raises BadInput; then nothing is left open."""
        # Stages have a thread each: torch's own pool in every one of them would oversubscribe the cores.
        torch.set_num_threads(1)
        cv2.setNumThreads(self.materials.engines.threads)
        with contextlib.ExitStack() as undo:
            runners: list[Runner] = []
            for node in self._nodes:
                runners.append(self._runner(node))
                undo.callback(runners[-1].close)
            undo.pop_all()
        settle(self.materials.config.device)
        loop = loop_of(self.plan)
        for runner in runners:
            runner.track = self.track
            runner.core = self.core if runner.stage_name in loop else None
        self.runners = runners

    def connect(self, epoch: int, resume: Resume) -> None:
        """Open the ends of links of an epoch and start every thread."""
        self._halt = Halt()
        inlets, outlets = self._wiring.open(epoch)
        for node, runner in zip(self._nodes, self.runners, strict=True):
            runner.connect(
                [inlets[link.name] for link in self.plan.links_into(node)],
                [outlets[link.name] for link in self.plan.links_from(node)],
                self._halt,
            )
            if isinstance(runner, SourceRunner):
                runner.resume(resume)
        for runner in self.runners:
            runner.start()

    def let_go(self, deadline_s: float | None = None) -> list[str]:
        """End the epoch: stop every thread, close its links; the stages stay open.

        Returns the stages whose thread was still inside a call at the deadline; then the links are left as they are,
        and only the end of the process frees them.
        """
        if self._halt is None:
            return []
        self._halt.set()
        until = None if deadline_s is None else time.monotonic() + deadline_s
        for runner in self.runners:
            runner.join(None if until is None else max(0.0, until - time.monotonic()))
        stuck = [runner.stage_name for runner in self.runners if runner.is_alive()]
        if stuck:
            return stuck
        for runner in self.runners:
            runner.disconnect()
        self._halt.close()
        self._wiring.let_go()
        self._halt = None
        return []

    def open_bypass(self, name: str, number: int) -> None:
        """Open the ends of a bypass that are here, for the `number`th time; what was open of it is closed."""
        if (opened := self._bypasses.pop(name, None)) is not None:
            opened.close()
        with contextlib.ExitStack() as undo:
            link, (inlets, outlets) = self._wiring.open_bypass(name, number, undo)
            for inlet in inlets.values():
                show = next(sink.show_raw for sink in self.sinks if sink.stage_name == link.receiver)
                undo.callback(BypassExit(inlet, show).close)
            for outlet in outlets.values():
                assert self.source is not None
                entry = BypassEntry(outlet)
                undo.callback(entry.close)
                self.source.passing.append(entry)
                undo.callback(self.source.passing.remove, entry)
            self._bypasses[name] = undo.pop_all()

    def pause(self, paused: bool) -> None:
        """Hold the source, or let it go on."""
        for runner in self.runners:
            if isinstance(runner, SourceRunner):
                runner.paused = paused

    def news(self) -> list[str]:
        """What the source has to tell of itself, since the last call; ends a read that waits when it is to stop."""
        source = self.source.recovering if self.source is not None else None
        if source is None:
            return []
        if self.stopped():
            source.interrupt()
        return source.news()

    def close(self) -> None:
        """Close stages, source and sinks; a sink that is not complete discards. Frees the links."""
        self.let_go()
        while self._bypasses:
            self._bypasses.popitem()[1].close()
        for runner in self.runners:
            runner.close()
        self._wiring.close()

    @property
    def ended(self) -> bool:
        """The end of the stream, or a failure that ends the run, has come through every stage."""
        return all(runner.ended for runner in self.runners)

    @property
    def busy(self) -> bool:
        """A thread is at work."""
        return any(runner.is_alive() for runner in self.runners)

    @property
    def source(self) -> SourceRunner | None:
        """The runner of the source, if it is here."""
        return next((r for r in self.runners if isinstance(r, SourceRunner)), None)

    @property
    def sinks(self) -> list[SinkRunner]:
        """The runners of the sinks that are here."""
        return [runner for runner in self.runners if isinstance(runner, SinkRunner)]

    def report(self) -> Report:
        """The figures so far."""
        return report(self.name, self.runners, self.clock())

    def _runner(self, node: NodePlan) -> Runner:
        config = self.materials.config
        if node.role == "source":
            return SourceRunner(
                node.name,
                self.ends.source(),
                self.clock,
                self.faults,
                stopped=self.stopped,
                book=self.book,
                live=self.ends.live,
                limit=config.frames if self.ends.live else None,
                reopen=self.ends.source if self.ends.rewind else None,
                tap=self.ends.taps.get("source"),
            )
        judge, leaves = self._pacing(node)
        if node.role == "sink":
            sink = self.ends.sink(node.about)
            return SinkRunner(
                node.name,
                sink,
                self.clock,
                self.faults,
                judge,
                fps=config.fps,
                live=self.ends.live,
                limit=config.frames if self.ends.live else None,
                stopped=self.stopped,
            )
        stage = open_stage(node, self.materials)
        if node.kind in self.ends.taps:
            stage = Tapped(stage, self.ends.taps[node.kind])
        return StageRunner(
            node.name,
            stage,
            self.clock,
            self.faults,
            book=self.book,
            settings_of=settings_of(node.kind, self.materials.prompts),
            pacer=judge,
            device=config.device,
            leaves=leaves,
        )

    def _pacing(self, node: NodePlan) -> tuple[Pacer | None, bool]:
        """(the pacer, whether frames are told to it as shown). Where the sinks are elsewhere, download tells it."""
        here = {n.name for n in self._nodes}
        last = "sink_1" if "sink_1" in here else "download"
        if self._pacer is None or "upload" not in here:
            return None, False
        return (self._pacer, node.name == last) if node.name in ("upload", last) else (None, False)
