"""How a graph gets at its source and its sinks."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.planner import usual_in_flight
from warpfuse.graph.runtime.realtime import Looped, RealTime
from warpfuse.graph.runtime.tap import Tap
from warpfuse.stages.sinks import open_sink, wants_raw
from warpfuse.stages.sources import connects, open_source, probe
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.stage import Sink, Source, Transparent, VideoInfo


@dataclass(frozen=True, slots=True)
class Endpoints:
    """How a worker opens the source and the sinks, if it runs them.

    source  a source from its beginning
    sink    the sink of a URL
    live    the source cannot wait
    rewind  the source can be opened again, to read what was lost
    taps    kind of stage, or "source" -> who looks at what it gives; "control" -> the name of a control comes first
    """

    source: Callable[[], Source]
    sink: Callable[[str], Sink]
    live: bool = False
    rewind: bool = True
    taps: Mapping[str, Tap] = field(default_factory=dict)


VIEWER = "page:"
"""Stands for the viewer among the sinks."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody in this process who looks at the streams of a run, by their names; "" is that of a run of one.

    sink  where the pictures of a stream go, besides to its sinks; told of its source, and the size of its pictures
    taps  kind of stage, or "source" -> who looks at what it gives
    """

    sink: Callable[[str, VideoInfo, tuple[int, int]], Sink]
    taps: Callable[[str], Mapping[str, Tap]]


def viewed(
    viewer: Viewer, name: str, config: GraphConfig, endpoints: Endpoints, info: VideoInfo, size: tuple[int, int]
) -> tuple[GraphConfig, Endpoints]:
    """The configuration and endpoints of a stream that is looked at. info: of its source; size: of its pictures"""
    # Few frames on their way, of a file too: what waits between the stages is late to show a change.
    few = config.in_flight or usual_in_flight(config, config.steps)
    shown = config.model_copy(update={"sinks": (*config.sinks, VIEWER), "in_flight": few})
    return shown, replace(seen_by(viewer, name, endpoints, info, size), taps=viewer.taps(name))


def seen_by(viewer: Viewer, name: str, endpoints: Endpoints, info: VideoInfo, size: tuple[int, int]) -> Endpoints:
    """The endpoints of a stream with the sink of a viewer, for a configuration that `viewed` gave."""
    opened = endpoints.sink

    def sink(url: str) -> Sink:
        return viewer.sink(name, info, size) if url == VIEWER else opened(url)

    return replace(endpoints, sink=sink)


def frames_expected(info: VideoInfo, config: GraphConfig) -> int | None:
    """How many frames a run will show, where that is known."""
    held = None if config.loop else info.frames
    return min((n for n in (held, config.frames) if n is not None), default=None)


def find_source(
    url: str, stop: threading.Event | None = None, near: tuple[int, int] | None = None
) -> tuple[VideoInfo, LiveSource | None]:
    """What is known of a source; and the connection, if it took one to know.

    near: of a source that offers several sizes that above this (width, height) is taken.
    Raises BadInput, StreamLost; Stopped if `stop` is set before there is a connection."""
    if not connects(url):
        return probe(url), None
    connected = open_source(url, stop=stop, near=near)
    assert isinstance(connected, LiveSource)
    return replace(connected.info, frames=None), connected


def endpoints_of(
    config: GraphConfig, info: VideoInfo, size: tuple[int, int], connected: LiveSource | None = None
) -> Endpoints:
    """How source and sinks of a configuration are opened. info: of the source; connected: what it is read from first"""
    live = info.live or config.paced
    looped = config.loop and not info.live

    def source() -> Source:
        nonlocal connected
        if connected is not None:
            first, connected = connected, None
            first.fit(size, None if live else config.frames)
            first.compose_on(config.background)
            return first
        # Those of a live source are counted where they leave for the networks: what is dropped is none of them.
        opened = Looped(opened_once) if looped else opened_once()
        return RealTime(opened, time.monotonic_ns) if config.paced and not info.live else opened

    def opened_once() -> Source:
        opened = open_source(config.source, size=size, frames=None if live else config.frames)
        if isinstance(opened, Transparent):
            opened.compose_on(config.background)
        return opened

    return Endpoints(
        source,
        lambda url: open_sink(
            url, replace(_at_rate(info, config), live=live), size, sound_from=None if looped else info.path
        ),
        live=live,
        rewind=not live,
    )


def check_passthrough(config: GraphConfig, info: VideoInfo) -> None:
    """Raise ConfigError for a sink that shows the source's pictures, of a source that waits for the networks."""
    waiting = not (info.live or config.paced)
    if waiting and (bridged := next(filter(wants_raw, config.sinks), None)) is not None:
        raise ConfigError(
            f"{bridged}: on-fault passthrough needs a source that goes on without the networks, and a file waits for"
            " them. Take a camera or a stream, give --realtime, or leave on-fault at hold"
        )


def _at_rate(info: VideoInfo, config: GraphConfig) -> VideoInfo:
    """What sinks are told of the source: with a rate of their own, that."""
    return info if config.fps is None else replace(info, fps=config.fps, time_base=1 / config.fps)
