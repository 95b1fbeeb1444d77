"""A run's source, found before there is a plan: what is known of it, and who is connected to it."""

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
    """What was found.

    connected  to be read by this process; none: it is opened when it is read
    probe      the process that is connected, and will read it
    folder     of the run, if it has been made
    """

    info: VideoInfo
    connected: LiveSource | None = None
    probe: SourceProbe | None = None
    folder: str = ""


def find(config: GraphConfig, undo: contextlib.ExitStack, stop: threading.Event) -> ResolvedSource:
    """Find the source of a run; all that it took is freed with `undo`.

    Raises BadInput, StreamLost, StageFailed; Stopped if `stop` is set before it is found."""
    reader = reader_of(config.workers) if connects(config.source) else None
    if reader is not None:
        with contextlib.ExitStack() as own:
            folder = folder_for(config, own)
            probe = SourceProbe(Path(folder), reader)
            own.callback(probe.close)
            info = probe.find(config.source, stop, config.size)
            if info.live or config.workers != "auto":  # else it is a clip, which is read in this process
                undo.push(own.pop_all())
                return ResolvedSource(info, probe=probe, folder=folder)
    info, connected = find_source(config.source, stop, config.size)
    if connected is not None:
        undo.callback(connected.close)
    return ResolvedSource(info, connected)


def folder_for(config: GraphConfig, undo: contextlib.ExitStack) -> str:
    """The folder of a run, which ends with `undo`."""
    name = config.name or free_name(name_after(config.source))
    return str(undo.enter_context(RunDirectory(name)).path)
