"""How a run opens its source and its sinks."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.planner import VIEWER, usual_in_flight
from warpfuse.graph.plan.sizing import framing_of
from warpfuse.graph.runtime.realtime import Looped, RealTime
from warpfuse.graph.runtime.tap import Tap
from warpfuse.stages.sinks import open_sink, wants_raw
from warpfuse.stages.sources import connects, open_source, probe
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.sources.schemes import scheme_of
from warpfuse.stages.stage import Sink, Source, Transparent, VideoInfo


@dataclass(frozen=True, slots=True)
class Endpoints:
    """How a worker opens the source and the sinks, if it runs them.

    source  opens the source at its beginning
    sink    opens the sink of a URL
    live    frames of the source cannot wait
    rewind  the source can be opened again to read frames that were lost
    taps    tap by kind of stage, or "source"; the tap of "control" gets the control's name as its first argument
    """

    source: Callable[[], Source]
    sink: Callable[[str], Sink]
    live: bool = False
    rewind: bool = True
    taps: Mapping[str, Tap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Shows the streams of a run in this process, for example on the control page.

    A stream is named by its name; "" is the stream of a run of one.

    sink  opens an additional sink for a stream, from its name, its source's info and the size of its pictures
    taps  the taps of a stream, by kind of stage or "source"
    """

    sink: Callable[[str, VideoInfo, tuple[int, int]], Sink]
    taps: Callable[[str], Mapping[str, Tap]]


def viewed(
    viewer: Viewer, name: str, config: GraphConfig, endpoints: Endpoints, info: VideoInfo, size: tuple[int, int]
) -> tuple[GraphConfig, Endpoints]:
    """Add a viewer to the configuration and endpoints of a stream. info: of its source; size: of its pictures."""
    # Limit the frames in flight for a file too: frames waiting between stages delay the effect of a changed setting.
    few = config.in_flight or usual_in_flight(config, config.steps)
    shown = config.model_copy(update={"sinks": (*config.sinks, VIEWER), "in_flight": few})
    return shown, replace(seen_by(viewer, name, endpoints, info, size), taps=viewer.taps(name))


def seen_by(viewer: Viewer, name: str, endpoints: Endpoints, info: VideoInfo, size: tuple[int, int]) -> Endpoints:
    """The endpoints with the sink of a viewer, for a configuration made by `viewed`."""
    opened = endpoints.sink

    def sink(url: str) -> Sink:
        return viewer.sink(name, info, size) if url == VIEWER else opened(url)

    return replace(endpoints, sink=sink)


def frames_expected(info: VideoInfo, config: GraphConfig) -> int | None:
    """Number of frames a run will show; None where it is unknown."""
    held = None if config.loop else info.frames
    return min((n for n in (held, config.frames) if n is not None), default=None)


def find_source(
    url: str, stop: threading.Event | None = None, near: tuple[int, int] | None = None
) -> tuple[VideoInfo, LiveSource | None]:
    """Probe a source. Returns its info, and the connection for a kind of source that has to be connected to.

    near  a source that offers several sizes is asked for the smallest one of at least this (width, height)

    Raises BadInput, StreamLost; Stopped if `stop` is set while it is connecting.
    """
    if not connects(url):
        return probe(url), None
    connected = open_source(url, stop=stop, near=near)
    assert isinstance(connected, LiveSource)
    return replace(connected.info, frames=None), connected


def endpoints_of(
    config: GraphConfig, info: VideoInfo, size: tuple[int, int], connected: LiveSource | None = None
) -> Endpoints:
    """The endpoints of a configuration. info: of the source; connected: a connection used for the first opening."""
    live = info.live or config.paced
    looped = config.loop and not info.live
    framing = framing_of(config, (info.width, info.height), size)

    def source() -> Source:
        nonlocal connected
        if connected is not None:
            first, connected = connected, None
            first.fit(framing.asked, None if live else config.frames)
            first.compose_on(config.background)
            return first
        # The frames of a live source are counted by its runner instead, which does not count dropped ones.
        opened = Looped(opened_once) if looped else opened_once()
        return RealTime(opened, time.monotonic_ns) if config.paced and not info.live else opened

    def opened_once() -> Source:
        opened = open_source(
            config.source, size=framing.asked, frames=None if live else config.frames, **_decoder(config)
        )
        if isinstance(opened, Transparent):
            opened.compose_on(config.background)
        return opened

    return Endpoints(
        source,
        lambda url: open_sink(
            url,
            replace(_at_rate(info, config), live=live, alpha=config.mask.transparent),
            framing.shown,
            sound_from=None if looped else info.path,
        ),
        live=live,
        rewind=not live,
    )


def _decoder(config: GraphConfig) -> dict[str, Any]:
    """The option of a file that is decoded on the card of the run. Raises ConfigError for another source."""
    if config.decoder == "host":
        return {}
    if scheme_of(config.source) != "file" or connects(config.source):
        raise ConfigError(f"decoder: card takes video files, the source is {config.source}: give decoder host")
    from warpfuse.stages.card_decoder import CardDecoder  # with torch, which a run on a card needs

    return {"decoder": CardDecoder(config.device)}


def check_passthrough(config: GraphConfig, info: VideoInfo) -> None:
    """Raise ConfigError for a sink with on-fault passthrough if the source waits for the networks, as a file does."""
    waiting = not (info.live or config.paced)
    if waiting and (bridged := next(filter(wants_raw, config.sinks), None)) is not None:
        raise ConfigError(
            f"{bridged}: on-fault passthrough needs a source that goes on without the networks, and a file waits for"
            " them. Take a camera or a stream, give --realtime, or leave on-fault at hold"
        )


def _at_rate(info: VideoInfo, config: GraphConfig) -> VideoInfo:
    """The info for sinks: the source's, with the frame rate of the configuration if it has one."""
    return info if config.fps is None else replace(info, fps=config.fps, time_base=1 / config.fps)
