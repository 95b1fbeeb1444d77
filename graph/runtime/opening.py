"""What a run is opened from: the materials of its stages, its source and its sinks."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from warpfuse.engine.bundle import Bundle, load_bundle
from warpfuse.engine.open import choose_backend, upgrade_of
from warpfuse.engine.precision import choose_precision, cpu_flags
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.sizing import choose_size
from warpfuse.graph.plan.streams import Streams, of_stream
from warpfuse.graph.runtime.build import Materials, idle_steps, open_prompts, rows_of, usable_cores
from warpfuse.graph.runtime.endpoints import Ends
from warpfuse.graph.runtime.engines import Engines, SharedEngines
from warpfuse.graph.runtime.realtime import RealTime
from warpfuse.stages.cpu.compile import compile_all
from warpfuse.stages.diffusion.prompts import Prompts
from warpfuse.stages.sinks import open_sink, wants_raw
from warpfuse.stages.sources import connects, open_source, probe
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.stage import Source, Transparent, VideoInfo

E = TypeVar("E", bound=Engines)


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


def ends_of(config: GraphConfig, info: VideoInfo, size: tuple[int, int], connected: LiveSource | None = None) -> Ends:
    """How source and sinks of a configuration are opened. info: of the source; connected: what it is read from first"""
    live = info.live or config.realtime

    def source() -> Source:
        nonlocal connected
        if connected is not None:
            first, connected = connected, None
            first.fit(size, None if live else config.frames)
            first.compose_on(config.background)
            return first
        # Those of a live source are counted where they leave for the networks: what is dropped is none of them.
        opened = open_source(config.source, size=size, frames=None if live else config.frames)
        if isinstance(opened, Transparent):
            opened.compose_on(config.background)
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
    _check_passthrough(config, info)
    return prepare(config, (info.width, info.height), say)


def _check_passthrough(config: GraphConfig, info: VideoInfo) -> None:
    waiting = not (info.live or config.realtime)
    if waiting and (bridged := next(filter(wants_raw, config.sinks), None)) is not None:
        raise ConfigError(
            f"{bridged}: on-fault passthrough needs a source that goes on without the networks, and a file waits for"
            " them. Take a camera or a stream, give --realtime, or leave on-fault at hold"
        )


def prepare(
    config: GraphConfig,
    shape: tuple[int, int],
    say: Callable[[str], None],
    warn: Callable[[str], None] | None = None,
) -> Materials:
    """Bundle, size and backend of a run over pictures of this (width, height). Raises BadInput.

    warn  is told what of a prompt is left out, as long as the run lasts; `say` where it is not given
    """
    backend, why = choose_backend(config.backend, config.device)
    compile_loops(config, say)
    bundle, why_precision = _open_bundle(config, backend)
    size, line = choose_size(config.size, shape, bundle.about.sizes, bundle.about.size)
    engines = _engines(Engines, backend, config, say)
    with contextlib.ExitStack() as undo:
        undo.callback(engines.close)
        prompts = _prompts(config, bundle, engines, warn or say)
        undo.pop_all()
    for note in (line, idle_steps(config, bundle)):
        if note:
            say(note)
    say(_networks(bundle, engines, why, why_precision))
    return Materials(config, bundle, size, engines, prompts)


def prepare_streams(
    streams: Streams, infos: Mapping[str, VideoInfo], say: Callable[[str], None]
) -> dict[str, Materials]:
    """The materials of every stream, over sources of which this is known: one bundle, one set of networks.

    Raises BadInput, for streams of different sizes too.
    """
    common = next(iter(streams.configs.values()))
    backend, why = choose_backend(common.backend, common.device)
    compile_loops(common, say)
    bundle, why_precision = _open_bundle(common, backend)
    size = _one_size(streams, infos, bundle, say)
    unet, patience_s = bundle.network("unet"), streams.gather_ms / 1000
    shared = partial(SharedEngines, unet=unet, batch=streams.batch, patience_s=patience_s)
    engines = _engines(shared, backend, common, say)
    found: dict[str, Materials] = {}
    with contextlib.ExitStack() as undo:
        undo.callback(engines.close)
        for name, config in streams.configs.items():
            with of_stream(name):
                _check_passthrough(config, infos[name])
                prompts = _prompts(config, bundle, engines, partial(_say_of, name, say))
            undo.callback(prompts.close)
            found[name] = Materials(config, bundle, size, engines, prompts)
            if note := idle_steps(config, bundle):
                say(f"{name}: {note}")
        rows = sum(rows_of(materials) for materials in found.values())
        undo.pop_all()
    say(_networks(bundle, engines, why, why_precision))
    most = bundle.about.batch or min(streams.batch or rows, rows)
    say(f"{len(found)} streams share them, " + (f"up to {most} rows in a call of the UNet" if most > 1 else "in turns"))
    return {name: replace(materials, rows=most) for name, materials in found.items()}


def compile_loops(config: GraphConfig, say: Callable[[str], None]) -> None:
    """Have the machine code of the stages' loops at hand, so that none is made while frames flow. Raises BadInput."""
    if config.device == "cpu":
        compile_all(say)


def _engines(make: Callable[..., E], backend: str, config: GraphConfig, say: Callable[[str], None]) -> E:
    """Who opens the networks."""
    upgrade = upgrade_of(config.backend, backend, config.device)
    return make(backend, config.device, config.threads or usable_cores(), upgrade, say)


def _prompts(config: GraphConfig, bundle: Bundle, engines: Engines, say: Callable[[str], None]) -> Prompts:
    """Opened, and the first ones tried."""
    prompts = open_prompts(config, bundle, engines, say)
    try:
        prompts(config.prompt, config.negative, config.loras)
    except BaseException:
        prompts.close()
        raise
    return prompts


def _say_of(stream: str, say: Callable[[str], None], line: str) -> None:
    say(f"{stream}: {line}")


def _open_bundle(config: GraphConfig, backend: str) -> tuple[Bundle, str]:
    """The bundle in the precision this backend runs it in, and why in that. Raises BadInput."""
    bundle = load_bundle(config.bundle)
    precision, why = choose_precision(config.precision, bundle.about, backend, config.device, cpu_flags())
    return bundle.in_precision(precision), why


def _networks(bundle: Bundle, engines: Engines, why: str, why_precision: str) -> str:
    then = f"; {engines.upgrade} is built meanwhile" if engines.upgrade else ""
    return (
        f"networks: {bundle.about.name}, on {engines.device} by {engines.backend} ({why}{then}),"
        f" UNet in {bundle.precision} ({why_precision})"
    )


def _one_size(
    streams: Streams, infos: Mapping[str, VideoInfo], bundle: Bundle, say: Callable[[str], None]
) -> tuple[int, int]:
    about = bundle.about
    shapes = {name: (info.width, info.height) for name, info in infos.items()}
    chosen = {n: choose_size(c.size, shapes[n], about.sizes, about.size) for n, c in streams.configs.items()}
    sizes = {size for size, _ in chosen.values()}
    if len(sizes) > 1:
        listed = ", ".join(f"{name} {w}x{h}" for name, ((w, h), _) in chosen.items())
        raise ConfigError(f"streams share networks of one size, these come to {listed}: give --size WxH")
    for line in dict.fromkeys(line for _, line in chosen.values() if line):
        say(line)
    return sizes.pop()
