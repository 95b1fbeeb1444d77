"""What a run is opened from: the materials of its stages, its source and its sinks."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.open import choose_backend, upgrade_of
from warpfuse.graph.build import Materials, idle_steps, open_prompts, usable_cores
from warpfuse.graph.config import GraphConfig
from warpfuse.graph.engines import Engines
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.realtime import RealTime
from warpfuse.graph.sizing import choose_size
from warpfuse.graph.worker import Ends
from warpfuse.stages.sinks import open_sink, wants_raw
from warpfuse.stages.sources import connects, open_source, probe
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.stage import Source, VideoInfo


def find_source(url: str) -> tuple[VideoInfo, LiveSource | None]:
    """What is known of a source; and the connection, if it took one to know. Raises BadInput, StreamLost."""
    if not connects(url):
        return probe(url), None
    connected = open_source(url)
    assert isinstance(connected, LiveSource)
    return replace(connected.info, frames=None), connected


def ends_of(config: GraphConfig, info: VideoInfo, size: tuple[int, int], connected: LiveSource | None = None) -> Ends:
    """How source and sinks of a configuration are opened. info: of the source; connected: what it is read from first"""
    live = info.live or config.realtime

    def source() -> Source:
        nonlocal connected
        if connected is not None:
            first, connected = connected, None
            first.fit(size, None if live else config.frames)
            return first
        # Those of a live source are counted where they leave for the networks: what is dropped is none of them.
        opened = open_source(config.source, size=size, frames=None if live else config.frames)
        return RealTime(opened, time.monotonic_ns) if config.realtime and not info.live else opened

    return Ends(
        source,
        lambda url: open_sink(url, replace(_at_rate(info, config), live=live), size, sound_from=info.path),
        live=live,
        rewind=not live,
    )


def _at_rate(info: VideoInfo, config: GraphConfig) -> VideoInfo:
    """What sinks are told of the source: with a rate of their own, that."""
    return info if config.fps is None else replace(info, fps=config.fps, time_base=1 / config.fps)


def prepare_source(config: GraphConfig, say: Callable[[str], None] = lambda line: None) -> tuple[VideoInfo, Materials]:
    """What is known of the configuration's source, and the materials of a run over it. Raises BadInput, StreamLost."""
    info = probe(config.source)
    return info, prepare_for(config, info, say)


def prepare_for(config: GraphConfig, info: VideoInfo, say: Callable[[str], None] = lambda line: None) -> Materials:
    """The materials of a run over a source of which this is known. Raises BadInput."""
    waiting = not (info.live or config.realtime)
    if waiting and (bridged := next(filter(wants_raw, config.sinks), None)) is not None:
        raise ConfigError(
            f"{bridged}: on-fault passthrough needs a source that goes on without the networks, and a file waits for"
            " them. Take a camera or a stream, give --realtime, or leave on-fault at hold"
        )
    return prepare(config, (info.width, info.height), say)


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
