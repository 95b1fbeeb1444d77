"""The cluster file: which hosts there may be, and which streams run on them.

    cluster: {name: yard, lease_s: 6, reserve: 1}
    bundle: ./turbo
    prompt: ink
    pools:
      cards: {gpu: L4, megapixel_ms: 60, sizes: ["512x288"]}
    secrets: {dir: /etc/warpfuse/secrets}
    streams:
      yard: {source: "rtsp://${secret:yard}@10.0.1.11/1", sinks: ["rtsp://media:8554/yard"], rate: 15}
      door: {source: "rtsp://${secret:door}@10.0.1.12/1", sinks: ["rtsp://media:8554/door"], prompt: noir, unique: true}

Keys at the top that are none of the cluster's hold for every stream, as in a graph file with `streams`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from warpfuse.cluster.secret_files import REFERENCE
from warpfuse.engine.redact import redact
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.raw_keys import merge, read_graph_file
from warpfuse.graph.plan.streams import COMMON, Streams, read_streams
from warpfuse.graph.plan.validation import validated
from warpfuse.graph.plan.values import Size, parse_size
from warpfuse.stages.settings import StageSettings

FROM_HEAD = "head"
"""The `store` of a cluster whose hosts fetch bundles from its head."""

_PASSWORD = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)@")
_OWN = ("cluster", "pools", "secrets")
_PLACED = ("pool", "rate", "unique", "needs")
_OF_HOSTS = (*COMMON, "workers", "listen", "keys")
_USUAL_RATE = 25.0


class ClusterSettings(StageSettings):
    """The cluster as a whole.

    lease_s       how long a host goes on with a stream that its controller has not confirmed
    reserve       nodes whose room is kept free for streams that lose their host
    move_every_s  a stream is moved to even out load once in so many seconds at most
    orphan_s      a host ends that no controller has asked for so long
    head, port    where the head answers the other nodes
    page          port of the head's page, which has all streams; none: there is no page
    store         where hosts fetch `bundle` from, by its sha256: "head", or a folder that all machines have; none: the
                  bundle is at the same path on every machine
    """

    name: str = Field("warpfuse", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")
    lease_s: float = Field(6.0, ge=1, le=600)
    reserve: int = Field(1, ge=0, le=64)
    move_every_s: float = Field(600.0, ge=0)
    orphan_s: float = Field(3600.0, ge=10)
    head: str = Field("127.0.0.1", min_length=1)
    port: int = Field(6379, ge=1024, le=65000)
    page: int | None = Field(None, ge=1, le=65535)
    store: str = ""


class PoolSettings(StageSettings):
    """Hosts of one kind.

    gpu            kind of card, as the cluster's engine names it; "cpu" for hosts without one
    frame_ms       what a frame costs a card whatever its size, in milliseconds
    megapixel_ms   what a UNet call of a million pixels costs it, as `warpfuse bench --streams` measures it
    budget         share of a card's time that streams are given
    sizes          sizes that streams may have; none: any
    """

    gpu: str = Field("cpu", min_length=1)
    frame_ms: float = Field(1.0, ge=0)
    megapixel_ms: float = Field(50.0, gt=0)
    budget: float = Field(0.8, gt=0, le=1)
    sizes: tuple[Annotated[Size, BeforeValidator(parse_size)], ...] = ()


class SecretSettings(StageSettings):
    """Where each host finds what `${secret:NAME}` stands for: a file NAME in this folder, which only its user reads."""

    dir: str = "/etc/warpfuse/secrets"


class PlacementSettings(StageSettings):
    """What a stream asks of where it runs.

    pool    of the cluster file; none: the only one
    rate    frames a second that its source gives; none: `fps` of the stream, else 25
    unique  two of it must never run at once: a source that takes one connection, a recording
    needs   labels that the node has to have
    """

    pool: str = ""
    rate: float | None = Field(None, gt=0, le=1000)
    unique: bool = False
    needs: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedStream:
    """One stream of the file. keys: for a stream host; secrets are references in them."""

    name: str
    graph: GraphConfig
    keys: Mapping[str, Any]
    pool: str
    rate: float
    unique: bool
    needs: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of the keys: another one is another stream."""
        return hashlib.sha256(json.dumps(self.keys, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A cluster file, checked. host_keys: what a stream host is opened with; the other keys go with the streams."""

    cluster: ClusterSettings
    pools: Mapping[str, PoolSettings]
    secrets: SecretSettings
    streams: Mapping[str, WantedStream]
    host_keys: Mapping[str, Any]

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Sizes that streams have or may have, as far as they are told."""
        told = {graph.size for graph in (stream.graph for stream in self.streams.values()) if graph.size is not None}
        return tuple(sorted({*told, *(size for pool in self.pools.values() for size in pool.sizes)}))


def read_cluster_file(path: Path) -> ClusterConfig:
    """Raises ConfigError: as `cluster_config`, or a file that cannot be read."""
    return cluster_config(read_graph_file(path), str(path))


def cluster_config(raw: Mapping[str, Any], where: str = "") -> ClusterConfig:
    """Raw keys. Raises ConfigError: an unknown key, a value out of range, a password in an address."""
    prefix = f"{where}: " if where else ""
    top = {key: value for key, value in raw.items() if key not in _OWN}
    cluster = validated(ClusterSettings, raw.get("cluster", {}), f"{prefix}cluster")
    if cluster.store == FROM_HEAD and cluster.page is None:
        raise ConfigError(f"{prefix}cluster.store: the head gives bundles through its page: give cluster.page, a port")
    if cluster.store not in ("", FROM_HEAD) and not Path(cluster.store).is_absolute():
        raise ConfigError(f"{prefix}cluster.store: expected head or an absolute folder, got {cluster.store!r}")
    secrets = validated(SecretSettings, raw.get("secrets", {}), f"{prefix}secrets")
    given = raw.get("pools", {"hosts": {}})
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{prefix}pools: expected names with their keys, as in cards: {{gpu: L4}}, got {given!r}")
    pools = {str(name): validated(PoolSettings, keys, f"{prefix}pools.{name}") for name, keys in given.items()}
    streams = _graphs(top, where)
    asked = {name: _asked(name, keys, prefix) for name, keys in _mapping(top.get("streams")).items()}
    wanted = {name: _wanted(name, streams, asked[name], pools, cluster, prefix) for name in streams.configs}
    hosts = {key: top[key] for key in (*COMMON, "batch", "gather_ms") if key in top}
    return ClusterConfig(cluster, pools, secrets, wanted, hosts)


def _graphs(top: dict[str, Any], where: str) -> Streams:
    """The streams as graphs, without what only a cluster knows of them."""
    named = _mapping(top.get("streams"))
    own = {name: {k: v for k, v in _mapping(keys).items() if k not in _PLACED} for name, keys in named.items()}
    return read_streams({**top, "streams": own, "host": True}, where)


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}


def _asked(name: str, keys: Any, prefix: str) -> PlacementSettings:
    place = f"{prefix}streams.{name}"
    for key in ("source", "sinks"):
        addresses = keys.get(key, ()) if isinstance(keys, dict) else ()
        for url in (addresses,) if isinstance(addresses, str) else addresses:
            found = _PASSWORD.match(str(url))
            if found is not None and REFERENCE.sub("", found[1]).strip(":"):
                raise ConfigError(
                    f"{place}.{key} holds a user or password ({redact(str(url))}): write ${{secret:{name}}} in its"
                    f" place, and put it into a file {name} in the folder of secrets on each host"
                )
    own = {key: value for key, value in _mapping(keys).items() if key in _PLACED}
    return validated(PlacementSettings, own, place)


def _wanted(
    name: str,
    streams: Streams,
    asked: PlacementSettings,
    pools: Mapping[str, PoolSettings],
    cluster: ClusterSettings,
    prefix: str,
) -> WantedStream:
    pool = asked.pool or (next(iter(pools)) if len(pools) == 1 else "")
    if pool not in pools:
        raise ConfigError(f"{prefix}streams.{name}.pool: expected one of {', '.join(pools)}, got {asked.pool!r}")
    graph, sizes = streams.configs[name], pools[pool].sizes
    if graph.size is None and len(sizes) == 1:
        graph = graph.model_copy(update={"size": sizes[0]})
    if sizes and graph.size not in sizes:
        listed = ", ".join(f"{w}x{h}" for w, h in sizes)
        raise ConfigError(f"{prefix}streams.{name}.size: pool {pool} takes {listed}; give one of them")
    keys = merge({key: value for key, value in streams.common.items() if key not in _OF_HOSTS}, dict(streams.own[name]))
    if graph.size is not None:
        keys["size"] = list(graph.size)
    rate = asked.rate or float(graph.fps or _USUAL_RATE)
    return WantedStream(name, graph, keys, pool, rate, asked.unique, asked.needs)
