"""Run a graph from its source to its sinks, in this process or in several."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.links.transports import best
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.prometheus import serving
from warpfuse.graph.metrics.trace import Track, write_chrome
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.live_settings import LiveSettings
from warpfuse.graph.plan.placement import several
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.processes.resolved_source import find, folder_for
from warpfuse.graph.processes.supervisor import Supervisor
from warpfuse.graph.runtime.build import calls_of
from warpfuse.graph.runtime.desk import Desk
from warpfuse.graph.runtime.opening import ends_of, prepare_for
from warpfuse.graph.runtime.thread_run import Running
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sinks import check
from warpfuse.stages.stage import VideoInfo


@dataclass(frozen=True, slots=True)
class Watch:
    """Who may look at a run.

    control  `warpfuse ctl` of the same user may, and may change settings
    metrics  port of 127.0.0.1 that Prometheus scrapes
    trace    file that the calls of every stage are written to, at the end
    """

    control: bool = False
    metrics: int | None = None
    trace: Path | None = None


NOBODY = Watch()


def run(
    config: GraphConfig,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    stop: threading.Event | None = None,
    watch: Watch = NOBODY,
) -> Stats:
    """Run a configuration to the end of its source.

    progress  called a few times a second with frames written and, if known, frames expected
    say       called with lines a user should read: the size chosen, the backend taken and why, what was lost
    stop      set it to end the run early; what was written until then is complete
    watch     who may look at the run, and ask things of it

    Raises BadInput before anything is written, StreamLost or StageFailed when the run broke off, Stopped when `stop`
    was set while the source was being connected.
    """
    _check_ends(config)
    stop = stop or threading.Event()
    with contextlib.ExitStack() as undo:
        origin = find(config, undo, stop)
        info = origin.info
        tell = _with_total(progress, info, config) or (lambda frames: None)
        materials = prepare_for(config, info, say)
        undo.callback(materials.close)
        live = info.live or config.realtime
        apart = several(config.workers, live=live)
        if apart and config.device.startswith("cuda"):
            best("cuda-ipc", device=config.device, say=say)
        folder = origin.folder or (folder_for(config, undo) if apart or watch.control else "")
        if watch.control:
            say(f"this run is {Path(folder).name}: warpfuse ctl {Path(folder).name} stats")
        endpoint = f"ipc://{folder}/control" if watch.control else ""
        keys = config.model_dump(mode="json")
        if apart:
            calls, traced = calls_of(materials), watch.trace is not None
            printed, attends = materials.bundle.about.printed, materials.attends
            plan = plan_graph(config, calls=calls, printed=printed, attends=attends, live=live, folder=folder)
            settings = LiveSettings(keys, config, plan, calls, materials.prompts, live, attends)
            supervisor = Supervisor(
                materials, plan, origin, Path(folder), settings, stop=stop, say=say, endpoint=endpoint, trace=traced
            )
            with serving(supervisor.stats, watch.metrics):
                stats = supervisor.run(tell)
            tracks = supervisor.tracks()
        else:
            track = Track() if watch.trace is not None else None
            running = Running(materials, ends_of(config, info, materials.size, origin.connected), stop, track=track)
            undo.callback(running.close)
            running.open()
            if endpoint:
                settings = running.live_settings(keys, config)
                undo.enter_context(Desk(endpoint, running.worker, settings, stats=running.stats, stop=stop))
            with serving(running.stats, watch.metrics):
                stats = running.wait(tell, say)
            tracks = {running.worker.name: track.spans() if track is not None else []}
    if watch.trace is not None:
        write_chrome(watch.trace, tracks)
    return concluded(stats, say)


def _check_ends(config: GraphConfig) -> None:
    if not config.source:
        raise ConfigError("no source: give --source PATH, or source: in the graph file")
    if not config.sinks:
        raise ConfigError("no sink: give --sink PATH, or sinks: in the graph file")
    for sink in config.sinks:
        check(sink, source=config.source)


def concluded(stats: Stats, say: Callable[[str], None]) -> Stats:
    """The figures of a run that came to its end, its warnings said. Raises SourceLost, which carries them."""
    for line in stats.warnings:
        say(line)
    if stats.source_lost is not None:
        lost = SourceLost(stats.source_lost)
        lost.stats = stats
        raise lost
    return stats


def _with_total(
    progress: Callable[[int, int | None], None] | None, info: VideoInfo, config: GraphConfig
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    expected = frames_expected(info, config)
    return lambda frames: progress(frames, expected)


def frames_expected(info: VideoInfo, config: GraphConfig) -> int | None:
    """How many frames a run will show, where that is known."""
    return min((n for n in (info.frames, config.frames) if n is not None), default=None)
