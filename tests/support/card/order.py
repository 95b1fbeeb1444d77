"""What happens before what: vector clocks of streams and host threads, and accesses that no order separates.

An actor is a stream or a host thread. Its clock holds, for each actor, the number of the last piece of work of that
actor which is known to be over before the next of its own. Two accesses of one byte, one of them a write, are a race
unless the clock of the later one holds the earlier one. So a race is found in whatever order the threads happened to
run.
"""

import itertools
import sys
import threading
from dataclasses import dataclass
from typing import NamedTuple

Actor = tuple[str, int]
Clock = dict[Actor, int]


class Span(NamedTuple):
    """Bytes lo to hi of a block of memory."""

    block: int
    lo: int
    hi: int


class Access(NamedTuple):
    """An access of bytes lo to hi of a block. number: that of the actor's work; where: the line of the package."""

    actor: Actor
    number: int
    writes: bool
    lo: int
    hi: int
    where: str


@dataclass(frozen=True)
class Race:
    """Two accesses that nothing orders, each described by its actor and its place."""

    first: str
    second: str

    def __str__(self):
        return f"{self.first}\n    and {self.second}"


def host():
    """This thread as an actor."""
    return ("thread", threading.get_ident())


def merge(clock, other):
    """Raise a clock to another, in place: the larger number of each actor."""
    for actor, number in other.items():
        if clock.get(actor, 0) < number:
            clock[actor] = number


class Order:
    """The clocks, the accesses that may still race, and the races found."""

    def __init__(self):
        self.lock = threading.RLock()
        self.races = []
        self._clocks = {}
        self._log = {}
        self._numbers = itertools.count(1)

    def clock(self, actor):
        """A copy of an actor's clock: what a message, an event or a lock hands on."""
        with self.lock:
            return dict(self._clocks.get(actor, ()))

    def join(self, actor, clock):
        """What `actor` does from now on comes after what `clock` holds."""
        with self.lock:
            merge(self._clocks.setdefault(actor, {}), clock)

    def streams(self):
        with self.lock:
            return [actor for actor in self._clocks if actor[0] == "stream"]

    def work(self, actor, reads, writes):
        """Add a piece of work of an actor, and find its races.

        Work of a stream is launched by this thread, so it follows all that the thread knows.
        """
        with self.lock:
            clock = self._clocks.setdefault(actor, {})
            if actor[0] == "stream":
                merge(clock, self._clocks.get(host(), {}))
            clock[actor] = next(self._numbers)
            at = where()
            for span in reads:
                self._access(clock, span, Access(actor, clock[actor], False, span.lo, span.hi, at))
            for span in writes:
                self._access(clock, span, Access(actor, clock[actor], True, span.lo, span.hi, at))

    def forget(self, block, actors=None):
        """Drop the accesses of a block by `actors` (None: by all), since its memory is used again after them."""
        with self.lock:
            if actors is None:
                self._log.pop(block, None)
                return
            past = {}
            for actor in actors:
                merge(past, self._clocks.get(actor, {}))
            self._log[block] = [a for a in self._log.get(block, ()) if past.get(a.actor, 0) < a.number]

    def knows(self, actor, other):
        """Whether all that `other` has done comes before what `actor` does next."""
        with self.lock:
            return self._clocks.get(actor, {}).get(other, 0) >= self._clocks.get(other, {}).get(other, 0)

    def under_way(self, block, actor):
        """Whether anything is done to a block that `actor` does not know to be over."""
        with self.lock:
            clock = self._clocks.get(actor, {})
            return any(clock.get(a.actor, 0) < a.number for a in self._log.get(block, ()))

    def fault(self, what):
        """Report a fault of another kind, with the place where it happened."""
        with self.lock:
            self.races.append(Race(what, where()))

    def _access(self, clock, span, new):
        kept = []
        for old in self._log.setdefault(span.block, []):
            ordered = clock.get(old.actor, 0) >= old.number
            if not ordered and (old.writes or new.writes) and old.lo < new.hi and new.lo < old.hi:
                self.races.append(Race(_told(old), _told(new)))
            covered = new.lo <= old.lo and old.hi <= new.hi
            # Whoever comes after the new one comes after the old one too: it need not be kept.
            if not (covered and ordered and (new.writes or (old.actor == new.actor and not old.writes))):
                kept.append(old)
        self._log[span.block] = [*kept, new]


def where():
    """The innermost line of the package, or of a test, that this thread is at."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("warpfuse.", "support.card.scenarios")) or frame.f_code.co_name.startswith("test_"):
            return f"{name}.{frame.f_code.co_qualname}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def site():
    """(module, function, line) of the package that asked for an operation of the card, for `Card.without`."""
    frame = sys._getframe(1)
    while frame is not None:
        name, function = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
        if name.startswith("warpfuse.") and name != "warpfuse.engine.device" and function not in ("reads", "wrote"):
            return name, function.replace(".<locals>", ""), frame.f_lineno
        frame = frame.f_back
    return "", "", 0


def _told(access):
    kind, number = access.actor
    return f"{'writes' if access.writes else 'reads'} at {access.where} [{kind} {number % 10_000}]"
