"""From what is wanted and what hosts tell to what is to be done: the controller of a cluster, without its engine.

A controller asks every host for a beat each second, with `grants` in the question, tells `hear` the answer, and does
what `tick` says. Every order may be lost or done twice: it is given again until a beat shows that it was done. What a
host tells is what is; after a restart the controller takes over what runs and touches none of it.

A stream is started on another host only when its host says that it has it no more, or when its lease there is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from warpfuse.cluster.config import ClusterConfig, WantedStream
from warpfuse.cluster.lease import PACE_S
from warpfuse.cluster.leased_host import REMOVED, STOPPED
from warpfuse.cluster.ledger import Books, Ledger
from warpfuse.cluster.packing import Host, better_place, place
from warpfuse.graph.control.messages import Grant, HostBeat, StreamSeen
from warpfuse.graph.errors import ConfigError

_BACK_OFF_S = (0.0, 2.0, 5.0, 15.0, 60.0)


@dataclass(frozen=True, slots=True)
class Add:
    """Start a life of a stream on a host, which takes it only while the grant holds, and each life once."""

    host: str
    stream: WantedStream
    grant: Grant


@dataclass(frozen=True, slots=True)
class Remove:
    """End a life of a stream on a host; of one that is over, forget it there."""

    host: str
    stream: str
    generation: int


Action = Add | Remove


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a stream has to outlive the controller.

    generation  of its newest life
    done        its source has ended
    closed      the books of its lives that are over
    """

    generation: int = 0
    done: bool = False
    closed: Books = field(default_factory=Books)


@dataclass
class _Record:
    """One stream.

    generation  of the newest life; ended: of the newest that is known to be over
    host        that has it, or was told to
    seen        its host tells of it
    granted_s   when the beat was heard that the newest grant for it answers
    goal        the host it is to go to, its own for a start anew
    lost        its last life ended with its host
    """

    generation: int = 0
    ended: int = 0
    host: str | None = None
    seen: bool = False
    granted_s: float = 0.0
    goal: str | None = None
    moved_s: float = float("-inf")
    lost: bool = False
    done: bool = False
    failures: int = 0
    retry_s: float = float("-inf")
    why: str = ""


@dataclass
class _Heard:
    beat: HostBeat
    at_s: float


@dataclass
class Reconciler:
    """See the module.

    config   what is wanted; `want` changes it
    begun_s  when this controller began
    before   what the controller before this one has kept
    moves    of streams, to even out load
    """

    config: ClusterConfig
    begun_s: float
    before: Mapping[str, Kept] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    moves: int = 0

    def __post_init__(self) -> None:
        self._records = {
            # One that has run, and that no host is found to have, has lost it.
            name: _Record(kept.generation, done=kept.done, lost=kept.generation > 0)
            for name, kept in self.before.items()
        }
        for name, kept in self.before.items():
            self.ledger.carry_over(name, kept.closed)
        self._heard: dict[str, _Heard] = {}
        self._strays: list[Remove] = []

    @property
    def kept(self) -> dict[str, Kept]:
        """To be written down before what `tick` said is done."""
        return {
            name: Kept(record.generation, record.done, self.ledger.closed(name))
            for name, record in self._records.items()
        }

    @property
    def troubles(self) -> dict[str, str]:
        """Why streams that are wanted do not run, by their names: one line each."""
        return {name: record.why for name, record in self._wanted() if record.why}

    @property
    def placed(self) -> dict[str, str]:
        """stream -> host."""
        return {name: record.host for name, record in self._records.items() if record.host is not None}

    @property
    def done(self) -> set[str]:
        """Streams whose source has ended."""
        return {name for name, record in self._records.items() if record.done}

    def want(self, config: ClusterConfig) -> None:
        """From now on these streams are wanted. One with other keys is begun anew, even where its source had ended."""
        for name, record in self._records.items():
            before, now = self.config.streams.get(name), config.streams.get(name)
            if before is None or now is None or before.digest != now.digest:
                record.done = False
        self.config = config

    def move(self, stream: str, host: str) -> None:
        """Have a stream go to this host, because somebody says so. Raises ConfigError."""
        record = self._records.get(stream)
        if record is None or record.host is None or stream not in self.config.streams:
            raise ConfigError(f"stream {stream!r} runs nowhere; running: {', '.join(self.placed) or 'none'}")
        if host not in self._heard:
            raise ConfigError(f"there is no host {host!r}; known: {', '.join(sorted(self._heard)) or 'none'}")
        record.goal = host if record.host != host else None

    def can_leave(self, host: str) -> bool:
        """Whether a stream of a draining host has another to go to, or that has not been looked for yet."""
        return any(not (r.goal is None and r.why) for _, r in self._wanted() if r.host == host)

    def grants(self, host: str) -> dict[str, Grant]:
        """What the next question to a host confirms."""
        heard = self._heard.get(host)
        if heard is None:
            return {}
        return {name: self._grant(record, heard) for name, record in self._wanted() if record.host == host}

    def hear(self, host: str, beat: HostBeat, now_s: float) -> None:
        """What a host has told."""
        before = self._heard.get(host)
        if before is not None and beat.beat == before.beat.beat:
            return  # told twice
        self._heard[host] = _Heard(beat, now_s)
        for name, seen in beat.streams.items():
            self._hear_of(host, name, seen, now_s)
        for name, record in self._records.items():
            if record.host == host and record.seen and name not in beat.streams:
                self._over(name, record, lost=record.goal is None and name in self.config.streams)
                self._try_again(record, now_s)

    def refuse(self, add: Add, why: str, now_s: float) -> None:
        """A host did not take an order, and never will. why: one line"""
        record = self._records[add.stream.name]
        if (record.host, record.generation) == (add.host, add.grant.generation) and not record.seen:
            self._over(add.stream.name, record, lost=False)
            self._try_again(record, now_s)
            record.why = why

    def tick(self, hosts: Sequence[Host], now_s: float) -> list[Action]:
        """What is to be done now. hosts: those there are, whether they answer or not"""
        actions: list[Action] = list(self._strays)
        self._strays.clear()
        for name, record in self._records.items():
            if record.host is not None and now_s > self._free_at(record):
                self._over(name, record, lost=True)
        if self._may_place({host.name for host in hosts}, now_s):
            self._drain(hosts, now_s)
            self._even_out(hosts, now_s)
            self._place(hosts, now_s)
        for name, record in self._records.items():
            wanted = self.config.streams.get(name)
            if record.host is None:
                continue
            if wanted is None or (record.goal is not None and record.seen):
                actions.append(Remove(record.host, name, record.generation))
            elif not record.seen and (heard := self._heard.get(record.host)) is not None:
                actions.append(Add(record.host, wanted, self._grant(record, heard)))
        return actions

    def _wanted(self) -> list[tuple[str, _Record]]:
        return [(name, self._records.setdefault(name, _Record())) for name in self.config.streams]

    def _grant(self, record: _Record, heard: _Heard) -> Grant:
        record.granted_s = heard.at_s
        return Grant(record.generation, heard.beat.beat, self.config.cluster.lease_s)

    def _free_at(self, record: _Record) -> float:
        """From when on no host runs by what was granted."""
        return record.granted_s + self.config.cluster.lease_s + PACE_S

    def _may_place(self, hosts: set[str], now_s: float) -> bool:
        """What runs is known: every host was heard, or has had time to let its streams go."""
        return hosts <= self._heard.keys() or now_s > self.begun_s + self.config.cluster.lease_s + PACE_S

    def _hear_of(self, host: str, name: str, seen: StreamSeen, now_s: float) -> None:
        wanted, record = self.config.streams.get(name), self._records.setdefault(name, _Record())
        known = seen.generation >= record.generation and seen.generation > record.ended and not record.done
        if record.host is None and wanted is not None and known:  # of the controller before this one
            record.host, record.generation, record.granted_s = host, seen.generation, now_s
        if (record.host, record.generation) != (host, seen.generation):
            record.generation = max(record.generation, seen.generation if record.host is None else 0)
            self._strays.append(Remove(host, name, seen.generation))
            return
        if not record.seen:
            record.seen, record.lost, record.why = True, False, ""
            self.ledger.begin(name, now_s)
        self.ledger.hear(name, seen.counts, now_s, wanted.rate if wanted is not None else 0.0)
        if seen.counts.out:
            record.failures = 0
        if wanted is not None and wanted.digest != seen.digest and record.goal is None:
            record.goal = host  # other keys: started anew where it is
        if seen.counts.over:
            self._over(name, record, lost=False)
            self._strays.append(Remove(host, name, seen.generation))
            record.done = wanted is not None and record.goal is None and seen.counts.error is None
            if not record.done:
                # One that was on its way when the controller before this one ended has lost its host all the same.
                record.lost = wanted is not None and seen.counts.error in (REMOVED, STOPPED)
                self._try_again(record, now_s)
                record.why = seen.counts.error or ""

    def _over(self, name: str, record: _Record, *, lost: bool) -> None:
        """Its life is over, on every host."""
        if record.seen:
            self.ledger.end(name, lost=lost)
            record.lost = lost
        record.ended, record.host, record.seen = record.generation, None, False

    def _try_again(self, record: _Record, now_s: float) -> None:
        """Later, the more often it has failed, the later."""
        record.retry_s = now_s + (0.0 if record.goal is not None else _BACK_OFF_S[record.failures])
        record.failures = min(record.failures + 1, len(_BACK_OFF_S) - 1)

    def _drain(self, hosts: Sequence[Host], now_s: float) -> None:
        """Give streams of draining hosts another to go to, of those that answer."""
        draining, wanted = {host.name for host in hosts if host.draining}, self.config.streams
        leaving = [n for n, r in self._wanted() if r.host in draining and r.goal in (None, r.host) and r.seen]
        if not leaving:
            return
        settled = {n: r.goal or r.host for n, r in self._wanted() if r.host not in (None, *draining)}
        there = {name: host for name, host in settled.items() if host is not None}
        held = [wanted[name] for name in (*there, *leaving)]
        others = [host for host in hosts if host.draining or self._is_alive(host.name, now_s)]
        found = place(held, others, self.config.pools, there, lost=frozenset(leaving))
        for name in leaving:
            self._records[name].goal = found.placed.get(name)
            self._records[name].why = found.refused.get(name, "")

    def _even_out(self, hosts: Sequence[Host], now_s: float) -> None:
        """Aim one stream of a full host at an empty one, when nothing else is going on."""
        records = self._wanted()
        if any(host.draining for host in hosts) or any(
            r.goal is not None or (not r.seen and not r.done) for _, r in records
        ):
            return
        rested = now_s - self.config.cluster.move_every_s
        movable = {name for name, record in records if record.moved_s <= rested}
        now = {name: record.host for name, record in records if record.host is not None}
        alive = [host for host in hosts if self._is_alive(host.name, now_s)]
        better = better_place(self.config.streams.values(), alive, self.config.pools, now, movable)
        if better is not None:
            record = self._records[better[0]]
            record.goal, record.moved_s = better[1], now_s
            self.moves += 1

    def _place(self, hosts: Sequence[Host], now_s: float) -> None:
        """Give streams without a host one."""
        waiting = {n: r for n, r in self._wanted() if r.host is None and not r.done and r.retry_s <= now_s}
        if not waiting:
            return
        alive = [host for host in hosts if self._is_alive(host.name, now_s)]
        names = {host.name for host in alive}
        held = {n: r.host for n, r in self._wanted() if r.host in names and r.host is not None}
        aimed = {n: r.goal for n, r in waiting.items() if r.goal in names and r.goal is not None}
        lost = frozenset(name for name, record in waiting.items() if record.lost or record.goal is not None)
        streams = [self.config.streams[name] for name in {*held, *waiting}]
        reserve = self.config.cluster.reserve
        found = place(streams, alive, self.config.pools, {**held, **aimed}, reserve=reserve, lost=lost)
        for name, record in waiting.items():
            host = found.placed.get(name)
            record.why = found.refused.get(name, "")
            if host is not None:
                record.host, record.goal, record.generation = host, None, record.generation + 1
                record.granted_s = self._heard[host].at_s

    def _is_alive(self, host: str, now_s: float) -> bool:
        heard = self._heard.get(host)
        recent = heard is not None and now_s - heard.at_s < self.config.cluster.lease_s / 2
        return recent and heard is not None and heard.beat.ready
