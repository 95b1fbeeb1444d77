"""Several streams in one run: their configurations, from one file or from several `--source` and `--sink`.

    bundle: embedded
    prompt: ink
    streams:
      yard: {source: "rtsp://10.0.0.5/1", sinks: [yard.mp4]}
      door: {source: camera:0, sinks: [door.mp4], prompt: mosaic, seed: 3}

Each stream is a graph of its own, with its own source, sinks, size, prompt, seed, settings, state and end. The streams
share the networks, which are opened once (`runtime/shared_engine.py`). Rows of the same size are computed in one call.
Keys at the top are defaults for all streams.
"""

import contextlib
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from warpfuse.engine.bundle import describe_bundle
from warpfuse.engine.bundle_file import BundleFile
from warpfuse.engine.errors import BadInput, BundleError, WarpfuseError
from warpfuse.graph.control.run_directory import name_after
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.graph_plan import GraphPlan, NodePlan
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.raw_keys import merge
from warpfuse.stages.errors import Stopped, StreamLost
from warpfuse.stages.sources.schemes import LIVE_SCHEMES, scheme_of

COMMON = ("bundle", "backend", "precision", "device", "threads")
"""Keys that determine how the networks are opened. They are the same for all streams."""

_PLACED = ("workers", "listen", "keys")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_MOST = 64
_SHARING = ("batch", "gather_ms", "host")  # keys of the run, not of a stream


@dataclass(frozen=True, slots=True)
class Streams:
    """A run of several streams.

    configs    by name, in the order in which they were given
    batch      most rows of different streams in one call of the UNet; None: one of each stream, or the batch for which
               the network was built
    gather_ms  how long a call of the UNet may wait for further streams; worthwhile where a call with many rows takes
               as long as one with a single row
    host       the run is a stream host: it keeps its networks open, with or without streams, until it is stopped
    name       name of the run for `warpfuse ctl`; empty: "streams", or "host"
    common     keys that are defaults for all streams
    own        the keys of each stream
    """

    configs: Mapping[str, GraphConfig]
    batch: int | None = None
    gather_ms: float = 0.0
    host: bool = False
    name: str = ""
    common: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, Any]:
        """The keys from which `read_streams` makes this."""
        shared = {"batch": self.batch, "gather_ms": self.gather_ms, "host": self.host, "name": self.name}
        return {**self.common, **shared, "streams": {name: dict(keys) for name, keys in self.own.items()}}

    def joined(self, name: str, keys: Mapping[str, Any]) -> GraphConfig:
        """The configuration of a stream that joins: its keys over the common ones. Raises ConfigError."""
        return _one(name, dict(keys), dict(self.common), "")


def is_of_several(raw: Mapping[str, Any]) -> bool:
    """The keys are those of several streams or of a stream host, for `read_streams`."""
    return "streams" in raw or bool(raw.get("host"))


def read_streams(raw: Mapping[str, Any], where: str = "") -> Streams:
    """Validate the keys of several streams, or of a stream host. where: the file's name, for errors.

    Raises ConfigError as `validate` does, and for a key in the wrong place.
    """
    prefix = f"{where}: " if where else ""
    top = dict(raw)
    given, host = top.pop("streams", {}), top.pop("host", False)
    batch, gather_ms = top.pop("batch", None), top.pop("gather_ms", 0)
    if type(host) is not bool:
        raise ConfigError(f"{prefix}host: expected true or false, got {host!r}")
    if not isinstance(given, dict) or not (given or host):
        raise ConfigError(f"{prefix}streams: expected names with their keys, as in yard: {{source: ..}}, got {given!r}")
    if batch is not None and (type(batch) is not int or not 1 <= batch <= _MOST):
        raise ConfigError(f"{prefix}batch: expected rows a call, 1 to {_MOST}, got {batch!r}")
    if type(gather_ms) not in (int, float) or not 0 <= gather_ms <= 1000:
        raise ConfigError(f"{prefix}gather_ms: expected milliseconds, 0 to 1000, got {gather_ms!r}")
    for key in ("source", "sinks"):
        if top.get(key):
            raise ConfigError(f"{prefix}{key}: is each stream's own here: streams.{next(iter(given), 'NAME')}.{key}")
    common = validate(top, where)
    if common.workers not in ("auto", "one"):
        raise ConfigError(f"{prefix}workers: streams that share networks run in one process: leave workers out")
    top.pop("name", None)
    configs = {str(name): _one(str(name), keys, top, prefix) for name, keys in given.items()}
    return Streams(configs, batch, gather_ms, host, common.name, top, {str(name): keys for name, keys in given.items()})


def from_flags(sources: Sequence[str], sinks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The streams of several `--source` with a `--sink` each, in the same order. They are named after their sources.

    Raises ConfigError if the numbers differ.
    """
    if len(sources) != len(sinks):
        raise ConfigError(
            f"{len(sources)} sources take as many sinks, in their order, got {len(sinks)}: give --sink once for each;"
            " a graph file with streams: gives them several"
        )
    streams: dict[str, dict[str, Any]] = {}
    for source, sink in zip(sources, sinks, strict=True):
        streams[free_stream_name(source, streams)] = {"source": source, "sinks": [sink]}
    return streams


def free_stream_name(source: str, taken: Container[str]) -> str:
    """A name for a stream after its source, with a number if the name is taken."""
    name = first = name_after(source)
    number = 1
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    return name


def plan_streams(streams: Streams) -> GraphPlan:
    """The graphs of all streams as one plan, for drawing. Stages, lanes and links are named `STREAM.name`."""
    nodes, links, calls, bypasses = list[NodePlan](), list[LinkPlan](), list[LinkPlan](), list[LinkPlan]()
    for name, config in streams.configs.items():
        plan = plan_as_asked(config)
        for node in plan.nodes:
            about = f"{node.about}; shared UNet" if node.kind == "predict" else node.about
            nodes.append(replace(node, name=f"{name}.{node.name}", lane=f"{name}.{node.lane}", about=about))
        links += [_of(name, link) for link in plan.links]
        calls += [_of(name, call) for call in plan.calls]
        bypasses += [_of(name, link) for link in plan.bypasses]
    return GraphPlan(tuple(nodes), tuple(links), tuple(bypasses), tuple(calls))


def plan_as_asked(config: GraphConfig) -> GraphPlan:
    """The graph of a configuration, as far as it is known without opening the source."""
    live = config.paced or scheme_of(config.source) in LIVE_SCHEMES
    printed, remembers = _known(config.bundle)
    return plan_graph(config, printed=printed, remembers=remembers, live=live)


def _known(bundle: str) -> tuple[bool, bool]:
    """The bundle draws lines; its UNet remembers. Both are False for an unreadable bundle, which fails when opened."""
    try:
        about = describe_bundle(bundle)
    except BundleError:
        return False, False
    if not isinstance(about, BundleFile):
        return False, False
    return about.printed, about.remembers


def _of(stream: str, link: LinkPlan) -> LinkPlan:
    name, sender, receiver = (f"{stream}.{part}" for part in (link.name, link.sender, link.receiver))
    return replace(link, name=name, sender=sender, receiver=receiver)


@contextlib.contextmanager
def of_stream(name: str) -> Iterator[None]:
    """Add the stream's name to errors that are raised inside."""
    try:
        yield
    except WarpfuseError as error:
        raise under_name(name, error) from error


def under_name(name: str, error: Exception) -> WarpfuseError:
    """The error with the stream's name in it, of the same class where that is possible."""
    match error:
        case Stopped():
            return error
        case StageFailed():
            named: WarpfuseError = StageFailed(f"{name}.{error.stage}", error.__cause__ or error)
        case StreamLost():
            named = type(error)(f"stream {name}: {error}")
        case BadInput():
            named = BadInput(f"stream {name}: {error}")
        case _:
            named = StageFailed(name, error)
    named.__cause__ = error.__cause__ or error
    return named


def _one(name: str, keys: Any, top: dict[str, Any], prefix: str) -> GraphConfig:
    place = f"{prefix}streams.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: no name for a stream: letters, digits, _ and -, 32 at most")
    if not isinstance(keys, dict):
        raise ConfigError(f"{place}: expected keys, as in source: yard.mp4, got {keys!r}")
    for key in (*COMMON, *_PLACED, "name", *_SHARING):
        if key in keys:
            raise ConfigError(f"{place}.{key}: is the same for all streams: give it at the top of the file")
    config = validate(merge(top, {**keys, "workers": "one"}), place)
    if not config.source or not config.sinks:
        raise ConfigError(f"{place}: a stream needs a source and sinks, as in {{source: yard.mp4, sinks: [out.mp4]}}")
    return config
