"""What a stream asks of a card, what a card has room for, and which stream goes where.

Load is the share of a card's time: rate x (frame_ms + megapixel_ms x megapixels x steps) / 1000. A stream that has a
host stays there. Others go, the heaviest first, to the card of their pool with the most room. Room of `reserve` nodes,
the largest, is kept: only streams that have lost their host are let into it.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from warpfuse.cluster.config import PoolSettings, WantedStream

_ANY_SIZE = 512 * 512  # pixels that a stream is reckoned with whose size its source decides
_EXACT = 1e-9


@dataclass(frozen=True, slots=True)
class Host:
    """A stream host: one card of a node.

    gpu       kind of card, or "cpu"
    draining  takes no stream, and those it has are moved
    """

    name: str
    node: str
    gpu: str = "cpu"
    labels: Mapping[str, str] | None = None
    draining: bool = False

    def suits(self, stream: WantedStream, pool: PoolSettings) -> bool:
        """Whether the stream may run there at all."""
        labels = self.labels or {}
        return self.gpu == pool.gpu and all(labels.get(key) == value for key, value in stream.needs.items())


@dataclass(frozen=True, slots=True)
class Placement:
    """placed: stream -> host; refused: stream -> why it has none, one line."""

    placed: Mapping[str, str]
    refused: Mapping[str, str]


def load_of(stream: WantedStream, pool: PoolSettings) -> float:
    """Share of a card of the pool."""
    size = stream.graph.size
    megapixels = (size[0] * size[1] if size is not None else _ANY_SIZE) / 1e6
    return stream.rate * (pool.frame_ms + pool.megapixel_ms * megapixels * stream.graph.steps) / 1000


def place(
    streams: Iterable[WantedStream],
    hosts: Sequence[Host],
    pools: Mapping[str, PoolSettings],
    now: Mapping[str, str],
    *,
    reserve: int = 0,
    lost: frozenset[str] = frozenset(),
) -> Placement:
    """Which stream goes where.

    now   stream -> host of those that have one; they stay
    lost  streams that have lost their host, and may use the reserve
    """
    wanted = sorted(streams, key=lambda stream: (-load_of(stream, pools[stream.pool]), stream.name))
    known = {host.name for host in hosts}
    placed = {stream.name: now[stream.name] for stream in wanted if now.get(stream.name) in known}
    by_host: dict[str, list[WantedStream]] = {}
    for stream in wanted:
        if stream.name in placed:
            by_host.setdefault(placed[stream.name], []).append(stream)
    refused: dict[str, str] = {}
    for name, pool in pools.items():
        own = [host for host in hosts if host.gpu == pool.gpu and not host.draining]
        free = {
            host.name: pool.budget - sum(load_of(s, pools[s.pool]) for s in by_host.get(host.name, ())) for host in own
        }
        kept = _kept(own, pool.budget, reserve)
        waiting = [stream for stream in wanted if stream.pool == name and stream.name not in placed]
        for stream in sorted(waiting, key=lambda stream: stream.name not in lost):
            load = load_of(stream, pool)
            suited = [host for host in own if host.suits(stream, pool)]
            best = max(suited, key=lambda host: (free[host.name], host.name), default=None)
            spare = sum(free.values()) - (0.0 if stream.name in lost else kept)
            if best is None or free[best.name] + _EXACT < load or spare + _EXACT < load:
                refused[stream.name] = _why(stream, load, name, pool, hosts, free, 0.0 if stream.name in lost else kept)
                continue
            placed[stream.name] = best.name
            free[best.name] -= load
    return Placement(placed, refused)


def better_place(
    streams: Iterable[WantedStream],
    hosts: Sequence[Host],
    pools: Mapping[str, PoolSettings],
    now: Mapping[str, str],
    movable: Container[str],
) -> tuple[str, str] | None:
    """(stream, host) of the move that evens out the most load; None where no move is worth its gap.

    A move has to bring the fuller of the two hosts down by a tenth of a card.
    """
    by_name = {host.name: host for host in hosts if not host.draining}
    load = dict.fromkeys(by_name, 0.0)
    for stream in (wanted := list(streams)):
        if now.get(stream.name) in load:
            load[now[stream.name]] += load_of(stream, pools[stream.pool])
    best, gain = None, 0.1 - _EXACT
    for stream in wanted:
        source, own = now.get(stream.name), load_of(stream, pools[stream.pool])
        if source not in load or stream.name not in movable:
            continue
        for host in by_name.values():
            saved = load[source] - max(load[source] - own, load[host.name] + own)
            if host.suits(stream, pools[stream.pool]) and saved > gain:
                best, gain = (stream.name, host.name), saved
    return best


def _kept(hosts: Sequence[Host], budget: float, reserve: int) -> float:
    """Room of the `reserve` nodes with the most cards; never that of the last node."""
    cards: dict[str, int] = {}
    for host in hosts:
        cards[host.node] = cards.get(host.node, 0) + 1
    return budget * sum(sorted(cards.values(), reverse=True)[: min(reserve, len(cards) - 1)]) if cards else 0.0


def _why(
    stream: WantedStream,
    load: float,
    name: str,
    pool: PoolSettings,
    hosts: Sequence[Host],
    free: Mapping[str, float],
    kept: float,
) -> str:
    for key, value in stream.needs.items():
        there = sorted({f"{key}={(h.labels or {})[key]} ({h.node})" for h in hosts if key in (h.labels or {})})
        if not any((host.labels or {}).get(key) == value for host in hosts):
            return f"no host has the label {key}={value}; known: {', '.join(there) or 'none of that name'}"
    if not free:
        kinds = sorted({host.gpu for host in hosts})
        return f"pool {name} takes cards of kind {pool.gpu}; there are: {', '.join(kinds) or 'no hosts'}"
    held = f", {kept:.2f} of it held in reserve" if kept else ""
    listed = ", ".join(f"{host} {room:.2f}" for host, room in sorted(free.items(), key=lambda x: -x[1])[:4])
    more = f" and {len(free) - 4} more" if len(free) > 4 else ""
    return (
        f"stream {stream.name} needs {load:.2f} of a card of pool {name} ({pool.gpu}); free: {listed}{more}{held}."
        " Add a host, lower reserve, or take fewer frames: fps: 10"
    )
