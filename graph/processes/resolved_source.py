"""A run's source, resolved before the graph is planned: its info, and the connection to it."""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

from warpfuse.graph.control.run_directory import RunDirectory, free_name, name_after
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.placement import reader_of
from warpfuse.graph.processes.source_probe import SourceProbe
from warpfuse.graph.runtime.endpoints import find_source
from warpfuse.stages.sources import connects
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.stage import VideoInfo


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A source of a run.

    info       its size, rate and kind
    connected  this process's connection to it; None: it is opened when it is read
    probe      the worker process that is connected to it and will read it; None: there is none
    folder     the run's folder, if it was made already; else ""
    """

    info: VideoInfo
    connected: LiveSource | None = None
    probe: SourceProbe | None = None
    folder: str = ""


def find(config: GraphConfig, undo: contextlib.ExitStack, stop: threading.Event) -> ResolvedSource:
    """Resolve the source of a run. Closing `undo` frees everything.

    Raises BadInput, StreamLost, StageFailed; Stopped if `stop` is set before it is found.
    """
    reader = reader_of(config.workers) if connects(config.source) else None
    if reader is not None:
        with contextlib.ExitStack() as probing:
            folder = folder_for(config, probing)
            probe = SourceProbe(Path(folder), reader)
            probing.callback(probe.close)
            info = probe.find(config.source, stop, config.size)
            if info.live or config.workers != "auto":  # else it is a clip, which is read in this process
                undo.push(probing.pop_all())
                return ResolvedSource(info, probe=probe, folder=folder)
    info, connected = find_source(config.source, stop, config.size)
    if connected is not None:
        undo.callback(connected.close)
    return ResolvedSource(info, connected)


def folder_for(config: GraphConfig, undo: contextlib.ExitStack) -> str:
    """Make the folder of a run. Closing `undo` removes it."""
    name = config.name or free_name(name_after(config.source))
    return str(undo.enter_context(RunDirectory(name)).path)
