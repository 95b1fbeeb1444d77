"""Opening the hosts of a cluster anew, with another bundle for example, one after the other, while its streams run.

The next host is that of least load among those whose streams find room elsewhere. It is warmed first, so what is wrong
with the new keys is found before any stream is moved. Then its streams move to hosts that run, as with `drain`, into
the reserve too. It is opened anew when it has none left, or none that finds room elsewhere: those wait meanwhile. The
next host comes when it is ready. Where warming fails or a host does not come back, the rollout waits, and the other
hosts go on as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from warpfuse.cluster.config import PoolSettings, WantedStream
from warpfuse.cluster.packing import Host, load_of, place

_LOOKED_AT = 8  # hosts of least load: at most so many are planned for, however many there are


@dataclass(frozen=True, slots=True)
class HostNow:
    """A host as the rollout sees it.

    answers    it was heard a moment ago
    ready      it takes streams, and was opened as it was told to be
    warm       None: not yet; "": warmed for what is wanted; else why that failed
    can_leave  a stream of it finds room elsewhere, or that has not been looked for yet
    """

    host: Host
    answers: bool
    ready: bool
    warm: str | None = None
    can_leave: bool = False


@dataclass
class Rollout:
    """See the module. Versions stand for the keys that hosts are opened with.

    opened    version that each host is told to be opened with
    current   host whose turn it is
    leaving   the same, while its streams are to move elsewhere
    trouble   why it does not go on, one line
    """

    opened: dict[str, str] = field(default_factory=dict)
    current: str | None = None
    leaving: str | None = None
    trouble: str = ""

    def warms(self, wanted: str) -> str | None:
        """The host that is to be warmed for this version now."""
        return self.current if self.current is not None and self.opened.get(self.current) != wanted else None

    def step(
        self,
        wanted: str,
        hosts: Sequence[HostNow],
        streams: Mapping[str, WantedStream],
        pools: Mapping[str, PoolSettings],
        placed: Mapping[str, str],
    ) -> None:
        """Find what is next. wanted: version; placed: stream -> host"""
        there = {now.host.name: now for now in hosts}
        self.opened = {name: self.opened.get(name, wanted) for name in there}
        self.trouble = ""
        old = [now for now in hosts if self.opened[now.host.name] != wanted]
        if self.leaving not in {now.host.name for now in old}:
            self.leaving = None
        if any(not now.ready for now in hosts if self.opened[now.host.name] == wanted):
            return  # one that was opened anew is not back yet
        answering = [now for now in old if now.answers]
        if self.current not in {now.host.name for now in answering or old}:  # none answers: it is asked in a moment
            self.current, self.leaving = _next(answering, hosts, streams, pools, placed), None
        if self.current is None or not there[self.current].answers:
            return
        now = there[self.current]
        if now.warm:
            self.trouble = f"hosts are not opened anew, since it failed on {self.current}: {now.warm}"
        elif now.warm == "" and self.current in placed.values() and now.can_leave:
            self.leaving = self.current
        elif now.warm == "":
            self.opened[self.current], self.leaving = wanted, None


def _next(
    old: Sequence[HostNow],
    hosts: Sequence[HostNow],
    streams: Mapping[str, WantedStream],
    pools: Mapping[str, PoolSettings],
    placed: Mapping[str, str],
) -> str | None:
    """The host whose turn it is; None: there is no old one."""

    own: dict[str, list[WantedStream]] = {now.host.name: [] for now in old}
    for name, host in placed.items():
        if host in own and name in streams:
            own[host].append(streams[name])
    load = {host: sum(load_of(stream, pools[stream.pool]) for stream in held) for host, held in own.items()}
    least = sorted(own, key=lambda host: (load[host], host))[:_LOOKED_AT]
    without = {host: _without_room(host, own[host], hosts, streams, pools, placed) for host in least}
    return min(least, key=lambda host: without[host], default=None)


def _without_room(
    leaving: str,
    own: Sequence[WantedStream],
    hosts: Sequence[HostNow],
    streams: Mapping[str, WantedStream],
    pools: Mapping[str, PoolSettings],
    placed: Mapping[str, str],
) -> int:
    """How many streams of a host find no room on the others that run."""
    others = [now.host for now in hosts if now.ready and now.host.name != leaving]
    names = {host.name for host in others}
    there = {name: host for name, host in placed.items() if host in names and name in streams}
    held = [*own, *(streams[name] for name in there)]
    return len(place(held, others, pools, there, lost=frozenset(stream.name for stream in own)).refused)
