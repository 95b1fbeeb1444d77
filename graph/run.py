"""Run a graph from its source to its sinks, in one process, a thread for each stage."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import torch
import zmq

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.open import choose_backend, upgrade_of
from warpfuse.engine.streams import settle
from warpfuse.graph.build import Materials, calls_of, idle_steps, open_prompts, open_stage, settings_of, usable_cores
from warpfuse.graph.config import GraphConfig
from warpfuse.graph.engines import Engines
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.link import Inlet, Outlet
from warpfuse.graph.meters import FrameCounts, Meter, Stats
from warpfuse.graph.pacer import Pacer
from warpfuse.graph.plan import GraphPlan, NodePlan, plan_graph
from warpfuse.graph.runner import Clock, FirstError, Runner, SinkRunner, SourceRunner, StageRunner
from warpfuse.graph.settings import SettingsBook
from warpfuse.graph.sizing import choose_size
from warpfuse.graph.slots import SlotTable
from warpfuse.graph.tap import Tap, Tapped
from warpfuse.graph.watch import Watch
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.stage import Sink, Source, VideoInfo

_TICK_S = 0.1

_epochs = itertools.count(1)


def run(
    config: GraphConfig,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    stop: threading.Event | None = None,
) -> Stats:
    """Run a configuration to the end of its source.

    progress  called a few times a second with frames written and, if known, frames expected
    say       called with lines a user should read: the size chosen, the backend taken and why, what was lost
    stop      set it to end the run early; what was written until then is complete

    Raises BadInput before anything is written, StreamLost or StageFailed when the run broke off.
    """
    if not config.source:
        raise ConfigError("no source: give --source PATH, or source: in the graph file")
    if not config.sinks:
        raise ConfigError("no sink: give --sink PATH, or sinks: in the graph file")
    for sink in config.sinks:
        check(sink, source=config.source)
    info = probe(config.source)
    materials = prepare(config, (info.width, info.height), say)
    with contextlib.ExitStack() as undo:
        undo.callback(materials.close)
        source = open_source(config.source, size=materials.size, frames=config.frames)
        undo.callback(source.close)
        running = Running(materials, source, stop or threading.Event())
        undo.callback(running.close)
        running.open(lambda url: open_sink(url, info, materials.size, sound_from=info.path))
        watch = Watch(source, say, running.stop)
        stats = watch.concluded(running.wait(watch.over(_with_total(progress, info, config))))
        for line in stats.warnings:
            say(line)
        return stats


def prepare(config: GraphConfig, shape: tuple[int, int], say: Callable[[str], None]) -> Materials:
    """Bundle, size and backend of a run over pictures of this (width, height). Raises BadInput."""
    bundle = load_bundle(config.bundle)
    size, line = choose_size(config.size, shape, bundle.about.sizes, bundle.about.size)
    backend, why = choose_backend(config.backend, config.device)
    upgrade = upgrade_of(config.backend, backend, config.device)
    engines = Engines(backend, config.device, config.threads or usable_cores(), upgrade, say)
    with contextlib.ExitStack() as undo:
        undo.callback(engines.close)
        prompts = open_prompts(config, bundle, engines)
        undo.callback(prompts.close)
        prompts(config.prompt, config.negative, config.loras)
        undo.pop_all()
    for note in (line, idle_steps(config, bundle)):
        if note:
            say(note)
    then = f"; {upgrade} is built meanwhile" if upgrade else ""
    say(f"networks: {bundle.about.name}, on {config.device} by {backend} ({why}{then})")
    return Materials(config, bundle, size, engines, prompts)


@dataclass
class Running:
    """A graph in one process: `open` starts every thread, `wait` ends with the figures, `close` frees the links.

    temporal  build the branch that carries the last picture even if the weight is 0 now; none: only if it is not
    taps      kind of stage -> who looks at what stages of that kind give
    """

    materials: Materials
    source: Source
    stop: threading.Event
    temporal: bool | None = None
    clock: Clock = time.monotonic_ns
    taps: Mapping[str, Tap] = field(default_factory=dict)
    runners: list[Runner] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._closing = False
        config = self.materials.config
        self.book = SettingsBook(config)
        self.calls = calls_of(self.materials)
        self.plan: GraphPlan = plan_graph(config, temporal=self.temporal, calls=self.calls)
        self._pacer = Pacer() if config.pace.active else None
        self._first_error = FirstError()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)

    def open(self, sink_for: Callable[[str], Sink]) -> None:
        """Open every stage and start its thread. Raises BadInput; then nothing was started and nothing is left."""
        # Stages have a thread each: torch's own pool in every one of them would oversubscribe the cores.
        torch.set_num_threads(1)
        cv2.setNumThreads(self.materials.engines.threads)
        with contextlib.ExitStack() as undo:
            runners = [self._runner(node, sink_for, undo) for node in self.plan.nodes]
            undo.pop_all()
        settle(self.materials.config.device)
        self._connect(runners)
        self.runners = runners
        for runner in self.runners:
            runner.start()

    def wait(self, progress: Callable[[int], None] | None = None) -> Stats:
        """Until every thread has ended. Raises what the first failed stage raised, or StageFailed around it."""
        for runner in self.runners:
            while runner.is_alive():
                runner.join(_TICK_S)
                if progress is not None:
                    progress(self._sinks[0].frames)
        error, stage = self._first_error.error, self._first_error.stage
        if error is None:
            unexplained = [runner.stage_name for runner in self.runners if runner.failed is not None]
            assert not unexplained, f"{', '.join(unexplained)} ended without a recorded error"
            return self._stats()
        if isinstance(error, WarpfuseError):
            raise error
        raise StageFailed(str(stage), error) from error

    def close(self) -> None:
        """End the stream if it has not ended, and free the links when the threads are done with them."""
        self._closing = True
        for runner in self.runners:
            if runner.ident is None:
                runner.start()  # interrupted while starting: the others wait for this one's end of the stream
        for runner in self.runners:
            runner.join()
            runner.disconnect()
        self._context.term()

    @property
    def alive(self) -> bool:
        """Every thread is at work."""
        return all(runner.is_alive() for runner in self.runners)

    def _stopped(self) -> bool:
        return self._closing or self.stop.is_set()

    def _runner(self, node: NodePlan, sink_for: Callable[[str], Sink], undo: contextlib.ExitStack) -> Runner:
        clock, first_error = self.clock, self._first_error
        if node.role == "source":
            return SourceRunner(node.name, self.source, clock, first_error, stopped=self._stopped, book=self.book)
        if node.role == "sink":
            sink = sink_for(node.about)
            undo.callback(sink.close, False)
            return SinkRunner(node.name, sink, clock, first_error, self._pacer)
        stage = open_stage(node, self.materials)
        undo.callback(stage.close)
        if node.kind in self.taps:
            stage = Tapped(stage, self.taps[node.kind])
        picker = settings_of(node.kind, self.materials.prompts)
        judge = self._pacer if node.kind == "upload" else None
        device = self.materials.config.device
        return StageRunner(
            node.name, stage, clock, first_error, book=self.book, settings_of=picker, pacer=judge, device=device
        )

    def _connect(self, runners: Sequence[Runner]) -> None:
        epoch = next(_epochs)
        inlets: dict[str, Inlet] = {}
        outlets: dict[str, Outlet] = {}
        for link in self.plan.links:
            table = SlotTable(link.slots)
            outlets[link.name] = Outlet(self._context, link, table, epoch)
            inlets[link.name] = Inlet(self._context, link, table, epoch)
        for node, runner in zip(self.plan.nodes, runners, strict=True):
            runner.connect(
                [inlets[link.name] for link in self.plan.links_into(node)],
                [outlets[link.name] for link in self.plan.links_from(node)],
            )

    @property
    def _sinks(self) -> Sequence[SinkRunner]:
        return [runner for runner in self.runners if isinstance(runner, SinkRunner)]

    def _stats(self) -> Stats:
        head = self.runners[0]
        assert isinstance(head, SourceRunner)
        config, sinks = self.materials.config, self._sinks
        outlets = [outlet for runner in self.runners for outlet in runner.outlets]
        warning = self.source.warning
        notes = [note for sink in sinks for note in sink.notes]
        return Stats(
            frames=FrameCounts(
                into=head.frames,
                out=sinks[0].frames,
                dropped=sum(outlet.dropped for outlet in outlets),
                held=sinks[0].held,
            ),
            seconds=(max(sink.ended_ns for sink in sinks) - head.started_ns) / 1e9,
            latency=sinks[0].latency if sinks else Meter(),
            stages={runner.stage_name: runner.meter for runner in self.runners},
            links={o.plan.name: {"sent": o.sent, "peak": o.peak, "slots": o.plan.slots} for o in outlets},
            backend=self.materials.engines.in_use,
            device=config.device,
            bundle=self.materials.bundle.about.name,
            size=self.materials.size,
            steps=config.steps,
            warnings=tuple(([warning] if warning else []) + notes),
            interrupted=self.stop.is_set(),
        )


def _with_total(
    progress: Callable[[int, int | None], None] | None, info: VideoInfo, config: GraphConfig
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    expected = min((n for n in (info.frames, config.frames) if n is not None), default=None)
    return lambda frames: progress(frames, expected)
