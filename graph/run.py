"""Open and run a configuration of one stream or several, in threads of this process or in several processes."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warpfuse.graph.control.run import Progress, Run
from warpfuse.graph.control.server import ControlServer, served
from warpfuse.graph.links.transports import best
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.prometheus import serving
from warpfuse.graph.metrics.trace import Track, write_chrome
from warpfuse.graph.plan.checks import check_ends
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.placement import several, with_worker
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.streams import Streams
from warpfuse.graph.processes.launcher import Launcher
from warpfuse.graph.processes.process_run import ProcessRun
from warpfuse.graph.processes.resolved_source import ResolvedSource, find, folder_for
from warpfuse.graph.processes.thread_worker import ThreadWorker
from warpfuse.graph.runtime.context import RunContext, Say, prepare, silent
from warpfuse.graph.runtime.endpoints import Viewer, check_passthrough, endpoints_of, frames_expected, viewed
from warpfuse.graph.runtime.streams_run import open_streams
from warpfuse.graph.runtime.thread_run import ThreadRun


@dataclass(frozen=True, slots=True)
class Observers:
    """How a run can be observed from outside.

    control  `warpfuse ctl` of the same user may read figures and change settings
    metrics  port on 127.0.0.1 for Prometheus; None: no exporter
    trace    file to which the calls of every stage are written at the end; None: no trace
    beside   makes what goes on beside the run and changes it, such as a MIDI input; None: nothing
    """

    control: bool = False
    metrics: int | None = None
    trace: Path | None = None
    beside: Callable[[Run], contextlib.AbstractContextManager[object]] | None = None


NOBODY = Observers()


def run(
    config: GraphConfig | Streams,
    *,
    progress: Progress | None = None,
    say: Say = silent,
    stop: threading.Event | None = None,
    observers: Observers = NOBODY,
) -> Stats:
    """Run a configuration to the end of its source; with several streams, to the end of the last one.

    progress   called a few times a second with frames written and, if known, frames expected
    say        called with lines for the user: the size chosen, the backend used and why, losses
    stop       set it to end the run early; the output until then is complete
    observers  how the run can be observed from outside

    Raises BadInput before anything is written, StreamLost or StageFailed when the run fails, Stopped when `stop`
    is set while the source is connecting. When one of several streams fails, the others first run to their end.
    """
    with contextlib.ExitStack() as undo:
        traced = observers.trace is not None
        under_way = open_run(config, undo, say=say, stop=stop, trace=traced, control=observers.control)
        beside = observers.beside(under_way) if observers.beside is not None else contextlib.nullcontext()
        with serving(under_way.stats, observers.metrics), beside:
            under_way.start()
            try:
                return under_way.wait(progress)
            finally:
                under_way.close()
                if observers.trace is not None:
                    write_chrome(observers.trace, under_way.spans())


def open_run(
    config: GraphConfig | Streams,
    undo: contextlib.ExitStack,
    *,
    say: Say = silent,
    stop: threading.Event | None = None,
    trace: bool = False,
    control: bool = False,
    viewer: Viewer | None = None,
    found: ResolvedSource | None = None,
) -> Run:
    """Open a run with all its stages. Closing `undo` frees everything.

    trace    record the calls of every stage
    control  answer requests of `warpfuse ctl` of the same user
    viewer   gets the pictures of the run, beside its sinks
    found    the source, if it is resolved already (a run of one stream); the caller closes it

    Raises as `run` does. After an error `undo` frees what had been opened.
    """
    outside = _Outside(say, stop or threading.Event(), trace, control, viewer)
    if isinstance(config, Streams):
        return _open_streams(config, undo, outside)
    return _open_one(config, undo, outside, found)


@dataclass(frozen=True, slots=True)
class _Outside:
    """What a run has to do with outside its graph; see `open_run`."""

    say: Say
    stop: threading.Event
    trace: bool
    control: bool
    viewer: Viewer | None


def _open_one(config: GraphConfig, undo: contextlib.ExitStack, outside: _Outside, found: ResolvedSource | None) -> Run:
    say, viewer, control = outside.say, outside.viewer, outside.control
    if viewer is not None:  # in one process if possible, since only then the viewer gets source and motion too
        config = config.model_copy(update={"workers": "one" if config.workers == "auto" else config.workers})
    begun_ns = time.monotonic_ns()
    check_ends(config, watched=viewer is not None)
    resolved = found or find(config, undo, outside.stop)
    info = resolved.info
    check_passthrough(config, info)
    track = Track() if outside.trace else None
    context = prepare(config, (info.width, info.height), say, stop=outside.stop, track=track)
    context = replace(context, begun_ns=begun_ns)
    undo.callback(context.close)
    apart = several(config.workers, live=info.live or config.paced)
    folder = resolved.folder or (folder_for(config, undo) if apart or control else "")
    if apart and config.device.startswith("cuda"):
        best("cuda-ipc", device=config.device, say=say)
    if control:
        say(f"this run is {Path(folder).name}: warpfuse ctl {Path(folder).name} stats")
    keys = config.model_dump(mode="json") if viewer is not None else None
    endpoints = endpoints_of(config, info, context.size, resolved.connected)
    if viewer is not None:
        config, endpoints = viewed(viewer, "", config, endpoints, info, context.framing.shown)
    if apart:
        opened: Run = _in_processes(replace(context, config=config), resolved, Path(folder), outside, keys)
        undo.callback(opened.close)
    else:
        expected = frames_expected(info, config)
        if viewer is not None:
            config = config.model_copy(update={"workers": "one"})
        temporal = True if viewer is not None else None
        context = replace(context, config=config)
        opened = thread_run = ThreadRun(context, endpoints, keys=keys, temporal=temporal, expected=expected)
        undo.callback(opened.close)
        thread_run.open()
    if control:
        undo.enter_context(ControlServer(Path(folder), opened))
    return opened


def _in_processes(
    context: RunContext, resolved: ResolvedSource, folder: Path, outside: _Outside, keys: dict[str, Any] | None
) -> ProcessRun:
    """A run in a process for each worker, but for the worker of a viewer, which is a thread here."""
    config, here, temporal = context.config, dict[str, Launcher](), None
    if outside.viewer is not None:
        workers, name = with_worker(config.workers, f"sink_{len(config.sinks)}")
        config, temporal = config.model_copy(update={"workers": workers}), True
        here = {name: ThreadWorker(outside.viewer)}
    plan = plan_graph(
        config,
        temporal=temporal,
        calls=context.calls,
        printed=context.bundle.about.printed,
        remembers=context.remembers,
        live=resolved.info.live or config.paced,
        folder=str(folder),
    )
    context = replace(context, config=config)
    return ProcessRun(context, plan, resolved, folder, keys=keys, here=here, temporal=temporal, trace=outside.trace)


def _open_streams(streams: Streams, undo: contextlib.ExitStack, outside: _Outside) -> Run:
    say, stop, trace, viewer = outside.say, outside.stop, outside.trace, outside.viewer

    @contextlib.contextmanager
    def answering(name: str, run: Run) -> Iterator[None]:
        if not outside.control:
            yield
            return
        with served(
            name, run, lambda name_of_run: say(f"stream {name} is {name_of_run}: warpfuse ctl {name_of_run} stats")
        ):
            yield

    opened = open_streams(streams, undo, say=say, stop=stop, trace=trace, beside=answering, viewer=viewer)
    if outside.control:
        told = "this run is {0}: warpfuse ctl {0} streams, stats, add, remove"
        name = streams.name or ("host" if streams.host else "streams")
        undo.enter_context(served(name, opened, lambda name_of_run: say(told.format(name_of_run))))
    return opened
