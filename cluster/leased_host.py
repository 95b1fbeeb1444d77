"""A stream host that runs streams by leave of the controller of its cluster.

Orders are taken at once and carried out in threads, so a source that takes long to connect delays nobody: what became
of it is in the next beats. A life of a unique stream ends with its lease. One that is not unique goes on without one,
until its controller is back and says otherwise: a controller that is gone costs no picture.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from secrets import randbelow

from msgspec.structs import replace

from warpfuse.cluster.lease import Leases
from warpfuse.cluster.secret_files import SecretFiles
from warpfuse.engine.errors import WarpfuseError, typed_line
from warpfuse.graph.control.messages import Grant, HostBeat, StartLife, StreamCounts, StreamSeen
from warpfuse.graph.control.run import ManyStreams
from warpfuse.graph.errors import ConfigError

LEASE_OVER = "its lease is over"
REMOVED = "removed"
STOPPED = "its host was stopped"

_NOTHING = StreamCounts(0, 0, 0, 0, 0, (0, 0))


def lease_clock() -> float:
    """Seconds that go on while the machine sleeps, where the system tells them: a lease does not sleep."""
    clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is not None and hasattr(time, "clock_gettime"):
        return float(time.clock_gettime(clock))
    return time.monotonic()


@dataclass
class _Life:
    """One life of a stream here.

    opened  the host has the stream; before that it is being opened
    why     it is to end, for this reason
    over    its last counts, once it has ended
    """

    order: StartLife
    opened: bool = False
    ending: bool = False
    why: str | None = None
    over: StreamCounts | None = None


class LeasedHost:
    """The streams of a host, as `LeasedStreams` says. Call `tick` some times a second.

    stop   set when the host is being stopped: a stream that ends then has not ended by itself
    clock  seconds, of a clock that never goes back
    """

    def __init__(
        self,
        host: ManyStreams,
        secrets: SecretFiles,
        stop: threading.Event,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self._host, self._secrets, self._stop, self._clock = host, secrets, stop, clock
        self._leases = Leases(1 + randbelow(1 << 52))
        self._lives: dict[str, _Life] = {}
        self._changing = threading.RLock()
        self._working: list[threading.Thread] = []
        self.asked_s = clock()

    def beat(self, grants: Mapping[str, Grant]) -> HostBeat:
        """As `LeasedStreams` says."""
        with self._changing:
            counts = self._host.counts()
            self.asked_s = now_s = self._clock()
            self._end_over(now_s)  # what was over before it was renewed stays over
            self._leases.renew(grants, now_s)
            seen = {name: self._seen(name, life, counts) for name, life in self._lives.items()}
            return HostBeat(self._leases.beat(now_s), seen)

    def begin(self, order: StartLife) -> None:
        """As `LeasedStreams` says."""
        name, generation = order.name, order.grant.generation
        with self._changing:
            life = self._lives.get(name)
            if life is not None and life.order.grant.generation == generation:
                return
            if life is not None and life.over is None:
                raise ConfigError(f"stream {name}: an earlier life of it has not ended here")
            if not self._leases.take(name, order.grant, self._clock()):
                raise ConfigError(f"stream {name}: {LEASE_OVER}")
            self._lives[name] = life = _Life(order)
        self._spawn(self._open, name, life)

    def end(self, name: str, generation: int) -> None:
        """As `LeasedStreams` says."""
        with self._changing:
            life = self._lives.get(name)
            if life is None or life.order.grant.generation != generation:
                return
            if life.over is not None:
                del self._lives[name]
            else:
                self._end(name, life, REMOVED)

    def tick(self) -> None:
        """End the unique streams whose lease is over."""
        with self._changing:
            self._end_over(self._clock())

    def finish(self) -> None:
        """Wait for streams that are being opened or ended. Call it when the host has been stopped."""
        for thread in list(self._working):
            thread.join()

    def _end_over(self, now_s: float) -> None:
        for name in self._leases.over(now_s):
            life = self._lives.get(name)
            if life is not None and life.order.unique:
                self._end(name, life, LEASE_OVER)

    def _end(self, name: str, life: _Life, why: str) -> None:
        """Have a life end. One that is being opened ends as soon as it is open."""
        life.why = life.why or why
        self._leases.drop(name)
        if life.opened and not life.ending:
            life.ending = True
            self._spawn(self._remove, name, life)

    def _open(self, name: str, life: _Life) -> None:
        try:
            self._host.add(name, self._secrets.filled_in(life.order.keys))
        except Exception as error:  # noqa: BLE001  told in the beats, whatever it is
            line = str(error) if isinstance(error, WarpfuseError) else typed_line(error)
            with self._changing:
                life.over = replace(_NOTHING, over=True, error=life.why or self._secrets.hidden(line))
                self._leases.drop(name)
            return
        with self._changing:
            life.opened = True
            if life.why is not None:
                self._end(name, life, life.why)

    def _remove(self, name: str, life: _Life) -> None:
        with suppress(ConfigError):  # it has ended meanwhile
            self._host.remove(name)
        with self._changing:
            self._note_over(name, life, self._host.counts()[name])

    def _seen(self, name: str, life: _Life, counts: Mapping[str, StreamCounts]) -> StreamSeen:
        if life.over is None and life.opened and name in counts and counts[name].over and not life.ending:
            self._note_over(name, life, counts[name])
        now = life.over or (counts.get(name, _NOTHING) if life.opened else _NOTHING)
        if life.over is None:
            now = replace(now, over=False, error=None)
        return StreamSeen(life.order.grant.generation, life.order.digest, now)

    def _note_over(self, name: str, life: _Life, counts: StreamCounts) -> None:
        error = life.why or (STOPPED if self._stop.is_set() else counts.error)
        life.over = replace(counts, over=True, error=None if error is None else self._secrets.hidden(error))
        self._leases.drop(name)

    def _spawn(self, work: Callable[[str, _Life], None], name: str, life: _Life) -> None:
        thread = threading.Thread(target=work, args=(name, life), name=f"wf:life {name}", daemon=True)
        thread.start()
        self._working = [*(other for other in self._working if other.is_alive()), thread]
