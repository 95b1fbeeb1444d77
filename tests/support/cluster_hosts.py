"""A simulated cluster: hosts that obey `warpfuse.cluster.lease`, in virtual time, with messages that are lost, repeated
and delayed."""

from dataclasses import dataclass, field

from warpfuse.cluster.config import cluster_config
from warpfuse.cluster.lease import Leases
from warpfuse.cluster.packing import Host
from warpfuse.cluster.reconcile import Add, Reconciler
from warpfuse.graph.control.messages import HostBeat, StreamCounts, StreamSeen

STEP_S = 0.5
LEASE_S = 6.0


def config_of(count, *, reserve=1, move_every_s=600, megapixel_ms=40.0, **keys):
    """A configuration of streams of 512x512 at 15 frames a second, every other one unique, by default with a load of
    0.16 of a card each."""
    ends = {"sinks": ["null:"], "rate": 15, "size": "512x512"}
    streams = {
        f"s{n}": {"source": f"pattern:512x512@15,seed={n}", "unique": n % 2 == 0, **ends, **keys} for n in range(count)
    }
    pool = {"gpu": "L4", "megapixel_ms": megapixel_ms, "frame_ms": 0}
    cluster = {"lease_s": LEASE_S, "reserve": reserve, "move_every_s": move_every_s}
    return cluster_config({"cluster": cluster, "pools": {"cards": pool}, "streams": streams})


def hosts_of(count, cards=1):
    return [Host(f"n{n}:{card}", f"n{n}", "L4") for n in range(count) for card in range(cards)]


@dataclass
class Running:
    generation: int
    digest: str
    unique: bool
    rate: float
    begun_s: float
    ended_s: float | None = None
    error: str | None = None

    def counts(self, now_s):
        over = self.ended_s is not None
        into = int(((self.ended_s if over else now_s) - self.begun_s) * self.rate)
        under_way = 0 if over else min(2, into)
        dropped, repeated = into // 7, into // 5
        out = into + repeated - dropped - under_way
        return StreamCounts(into, out, repeated, dropped, under_way, (96, 64), over=over, error=self.error)


@dataclass
class FakeHost:
    """A simulated host. state: up, frozen (does nothing), cut (runs, but is unreachable), dead."""

    host: Host
    first: int
    state: str = "up"
    streams: dict[str, Running] = field(default_factory=dict)

    def __post_init__(self):
        self.leases = Leases(self.first)

    def step(self, now_s):
        """A step of the host: unique streams end with their lease."""
        for name in self.leases.over(now_s):
            if self.state in ("up", "cut") and name in self.streams and self.streams[name].unique:
                self.end(name, now_s, "its lease is over")

    def beat(self, grants, now_s):
        self.leases.renew(grants, now_s)
        number = self.leases.beat(now_s)
        seen = {name: StreamSeen(own.generation, own.digest, own.counts(now_s)) for name, own in self.streams.items()}
        return HostBeat(number, seen)

    def add(self, add, now_s, broken):
        """Add a stream. Returns None, or the reason for refusing it."""
        stream, generation = add.stream, add.grant.generation
        if stream.name in self.streams and self.streams[stream.name].generation == generation:
            return None
        if not self.leases.take(stream.name, add.grant, now_s):
            return "its lease is over"
        if stream.name in broken:
            self.leases.drop(stream.name)
            return "the source is not there"
        self.streams[stream.name] = Running(generation, stream.digest, stream.unique, stream.rate, now_s)
        return None

    def remove(self, name, generation, now_s):
        """End a running stream, or forget one that has ended."""
        if name in self.streams and self.streams[name].generation == generation:
            if self.streams[name].ended_s is not None:
                del self.streams[name]
            else:
                self.end(name, now_s, "removed")

    def end(self, name, now_s, error):
        self.streams[name].ended_s, self.streams[name].error = now_s, error
        self.leases.drop(name)


class World:
    """A controller and its hosts. loss, again: called for each message, to decide if it is lost or repeated."""

    def __init__(self, config, hosts, *, loss=lambda: False, again=lambda: False):
        self.now_s, self.boots = 0.0, 0
        self.loss, self.again = loss, again
        self.late, self.actions, self.kept, self.broken = [], [], {}, set()
        self.hosts = {}
        for host in hosts:
            self.boot(host)
        self.controller = Reconciler(config, 0.0)

    def boot(self, host):
        """Start or restart a host."""
        self.boots += 1
        self.hosts[host.name] = FakeHost(host, self.boots * 1_000_000)

    def restart_controller(self):
        self.controller = Reconciler(self.controller.config, self.now_s, self.kept)

    def happen(self, kind, number):
        """kill, boot, freeze, cut or heal the host of that number, or restart the controller."""
        own = list(self.hosts.values())[number % len(self.hosts)]
        if kind == "restart":
            self.restart_controller()
        elif kind == "kill":
            own.state = "dead"
            own.streams.clear()
        elif kind == "boot" and own.state == "dead":
            self.boot(own.host)
        elif kind in ("freeze", "cut", "heal") and own.state != "dead":
            own.state = {"freeze": "frozen", "cut": "cut", "heal": "up"}[kind]

    def settle(self, seconds=90):
        """Let all hosts answer, without losses, for a while."""
        self.loss = self.again = lambda: False
        for number in range(len(self.hosts)):
            self.happen("boot", number)
            self.happen("heal", number)
        self.run(seconds)

    def generations(self):
        return {name: kept.generation for name, kept in self.kept.items()}

    def running(self, name, leased=False):
        """The hosts on which a stream runs now; leased: only with a valid lease."""
        live = [own for own in self.hosts.values() if own.state in ("up", "cut") and name in own.streams]
        live = [own for own in live if own.streams[name].ended_s is None]
        return [own.host.name for own in live if not leased or name not in own.leases.over(self.now_s)]

    def run(self, seconds):
        for _ in range(int(seconds / STEP_S)):
            self.step()

    def step(self):
        """Half a second: hosts check their leases, then the controller sends requests, gets answers, and acts."""
        self.now_s += STEP_S
        for own in self.hosts.values():
            own.step(self.now_s)
        self.check()
        due, self.late = self.late, []
        for action in due:
            self._order(action, told=False)
        for name, own in self.hosts.items():
            grants = self.controller.grants(name)
            if own.state == "up" and not self.loss():
                beat = own.beat(grants, self.now_s)
                if not self.loss():
                    self.controller.hear(name, beat, self.now_s)
        self.actions = self.controller.tick([own.host for own in self.hosts.values()], self.now_s)
        self.kept = self.controller.kept
        for action in self.actions:
            if self.again():
                self.late.append(action)
            self._order(action, told=True)
        self.check()

    def _order(self, action, told):
        own = self.hosts[action.host]
        if own.state != "up" or self.loss():
            return
        if not isinstance(action, Add):
            own.remove(action.stream, action.generation, self.now_s)
            return
        why = own.add(action, self.now_s, self.broken)
        if why is not None and told and not self.loss():
            self.controller.refuse(action, why, self.now_s)

    def check(self):
        """Check the invariants."""
        having, leased = {}, {}
        for own in self.hosts.values():
            over = set(own.leases.over(self.now_s))
            for name, stream in own.streams.items():
                if own.state in ("up", "cut") and stream.ended_s is None:
                    having[name] = having.get(name, 0) + 1
                    leased[name] = leased.get(name, 0) + (name not in over)
        for name, stream in self.controller.config.streams.items():
            assert leased.get(name, 0) <= 1, f"{name} runs twice by leave, at {self.now_s}"
            assert not stream.unique or having.get(name, 0) <= 1, f"{name} runs twice, at {self.now_s}"
            assert self.controller.ledger.books(name).balanced, name
