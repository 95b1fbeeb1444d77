"""Presentation times from what a container says of them.

`PacketTimes` takes the jumps out of the packets of a file, of all its streams alike; `Times` gives each frame decoded
from them its own time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

_NS = 1_000_000_000
_LEAP = 10  # seconds: a gap in the picture is shorter, the clock of another recording farther away
_BACK = Fraction(1, 10)  # seconds that decoding times may run backwards
_ABSURD = 30 * 3600  # seconds; where times do not start anew, one so far from its place is damage
_DEEPEST = 20  # packets by which decoding is ahead of showing, at the most
_MOST = 1 << 62  # ticks; FFmpeg counts in 64 bits
_LATE = 1  # seconds after a joint at which no stream can still be before it
_LISTED = 3  # jumps that are told one by one


@dataclass(slots=True)
class _Part:
    """A stretch of a file with one clock: seconds to add to its times, and the mended time at which the next begins."""

    offset: Fraction
    end: Fraction | None = None


@dataclass(slots=True)
class _Line:
    """Where one stream is, in its own ticks after mending; in which part; and what is far, in the same."""

    time_base: Fraction
    usual: int
    part: "_Part | None" = None
    dts: int | None = None
    next: int | None = None
    shift: Fraction = Fraction(0)
    leap: int = field(init=False)
    back: int = field(init=False)
    absurd: int = field(init=False)

    @property
    def ticks(self) -> int:
        """What to add to the stream's times."""
        return round(self.part.offset / self.time_base) if self.part is not None and self.part.offset else 0

    def __post_init__(self) -> None:
        self.leap, self.back, self.absurd = (round(s / self.time_base) for s in (_LEAP, _BACK, _ABSURD))


@dataclass(frozen=True, slots=True)
class Jump:
    """A place where the clock of a file jumps: seconds from its first packet, and by how many seconds."""

    at: Fraction
    by: Fraction


class PacketTimes:
    """Times of packets with the jumps taken out, where the program ffmpeg takes them out.

    In formats whose clock may start anew (MPEG-TS and PS, Ogg, HLS) a part begins where decoding times leap by more
    than ten seconds, or run back by more than a tenth. It is moved so that the stream goes on where it was, and so are
    the other streams from where they come to it: within a part picture and sound lie as the file has them. Other
    formats mean what they say, but for times that are 30 hours off: those are dropped.

    streams      of each stream, by its index: seconds a tick, and the usual length of a packet in ticks
    starts_anew  the format's clock may start anew
    leaps        how often a stream's times were moved so far; at one joint each stream may be
    """

    def __init__(self, streams: Mapping[int, tuple[Fraction, int]], starts_anew: bool) -> None:
        self._lines = {index: _Line(time_base, usual) for index, (time_base, usual) in streams.items()}
        self.leaps = 0
        self._starts_anew = starts_anew
        self._part = _Part(Fraction(0))  # the newest
        self._zero = Fraction(0)
        self._last: tuple[int, Fraction] | None = None
        self._jumps: list[Jump] = []

    def __call__(
        self, index: int, pts: int | None, dts: int | None, duration: int | None
    ) -> tuple[int | None, int | None]:
        """(pts, dts) of the next packet in the file's order, mended; ticks of its stream, None where there is none."""
        line = self._lines[index]
        first = line.next is None
        pts, dts = _kept(pts, 0), _kept(dts, 0)
        if self._starts_anew:
            pts, dts = self._placed(line, pts, dts)
        elif dts is not None and line.next is not None:
            pts, dts = _plausible(line, pts, dts)
        if first:
            line.shift = Fraction(0) if line.part is None else line.part.offset
            line.next = pts if dts is None else dts
        if dts is not None:
            line.next = dts
        line.dts = line.next
        if line.next is not None:
            line.next += duration or line.usual
        return pts, dts

    def shift(self, index: int) -> Fraction:
        """Seconds that were added to the first packet of a stream; 0 before it came."""
        return self._lines[index].shift if index in self._lines else Fraction(0)

    def forget(self) -> None:
        """Drop the jumps so far: a live source would gather them without end."""
        self._jumps.clear()

    @property
    def jumps(self) -> list[Jump]:
        """Where the clock jumped so far."""
        return [*self._jumps]

    def _placed(self, line: _Line, pts: int | None, dts: int | None) -> tuple[int | None, int | None]:
        """The times of a packet in the part it belongs to."""
        meant = line.next
        if meant is None and self._last is not None:  # the first of a stream is measured by the others
            last, time_base = self._last
            meant = round(last * time_base / line.time_base)
        line.part = line.part or self._part
        if dts is not None:
            if meant is None:
                self._zero = dts * line.time_base
            elif self._leaps(line, dts + line.ticks, meant):
                self._enter(line, dts, meant)
            elif self._outlived(line):
                self._follow(line, dts, meant)
        pts, dts = _kept(pts, line.ticks), _kept(dts, line.ticks)
        if dts is not None:
            self._last = dts, line.time_base
            if pts is not None and abs(pts - dts) > max(line.leap, _DEEPEST * line.usual):
                pts = None  # no decoder holds a picture back so long
        return pts, dts

    def _leaps(self, line: _Line, dts: int, meant: int) -> bool:
        return abs(dts - meant) > line.leap or (line.dts is not None and dts + line.back < line.dts)

    def _outlived(self, line: _Line) -> bool:
        """The stream is too late for its part: it came to the next one without a leap of its own."""
        end = None if line.part is None else line.part.end
        return end is not None and line.next is not None and line.next * line.time_base > end + _LATE

    def _follow(self, line: _Line, dts: int, meant: int) -> None:
        """The stream goes over to the newest part, unless that is on another clock than the stream."""
        part, line.part = line.part, self._part
        if self._leaps(line, dts + line.ticks, meant):
            line.part = part
        else:
            self.leaps += 1

    def _enter(self, line: _Line, dts: int, meant: int) -> None:
        """The stream comes to the next part: one that others have come to already, or one that begins here."""
        self.leaps += 1
        if line.part is not self._part:
            line.part = self._part
            if not self._leaps(line, dts + line.ticks, meant):
                return
            over = meant - (dts + line.ticks)
            if 0 < over <= line.leap:  # here the old part was longer: all of the new one follows it
                self._part.offset += over * line.time_base
                return
        leap = (dts + line.ticks - meant) * line.time_base
        self._part.end = meant * line.time_base
        line.part = self._part = _Part(self._part.offset - leap)
        self._jumps.append(Jump(meant * line.time_base - self._zero, leap))


class Times:
    """Strictly increasing times of frames from a stream's own, which may be missing, doubled or run backwards.

    time_base  seconds a tick
    start      tick that is time zero
    rate       frames a second; a frame without a time follows its predecessor by one period
    mended     times that were missing or did not increase, so far
    """

    def __init__(self, time_base: Fraction, start: int, rate: Fraction) -> None:
        self.mended = 0
        self.last_ns = 0
        self._time_base = time_base
        self._start = start
        self._period = max(1, round(1 / (rate * time_base)))
        self._last: int | None = None
        self._guess = BestEffort()

    def __call__(self, pts: int | None, dts: int | None = None) -> int:
        """The time of the next frame, nanoseconds from the start of the stream, rounded from the exact value."""
        pts = self._guess(pts, dts)
        if pts is None:
            tick = self._start if self._last is None else self._last + self._period
            self.mended += 1
        elif self._last is not None and pts <= self._last:
            tick = self._last + 1
            self.mended += 1
        else:
            tick = pts
        self._last = tick
        self.last_ns = round((tick - self._start) * self._time_base * _NS)
        return self.last_ns


class BestEffort:
    """A frame's time by its presentation time or the decoding time of its packet: whichever ran backwards less often.

    Containers without presentation times (AVI) have the second alone.
    """

    def __init__(self) -> None:
        self._pts = self._dts = -_MOST
        self._bad_pts = self._bad_dts = 0

    def __call__(self, pts: int | None, dts: int | None) -> int | None:
        """The more believable of the two, None if there is neither."""
        if dts is not None:
            self._bad_dts += dts <= self._dts
            self._dts = dts
        elif pts is not None:
            self._dts = pts
        if pts is not None:
            self._bad_pts += pts <= self._pts
            self._pts = pts
        elif dts is not None:
            self._pts = dts
        return pts if pts is not None and (dts is None or self._bad_pts <= self._bad_dts) else dts


def told(jumps: list[Jump]) -> str | None:
    """One line of where times were mended, None if they were not."""
    if not jumps:
        return None
    listed = ", ".join(f"by {float(jump.by):+.1f} s at {float(jump.at):.1f} s" for jump in jumps[:_LISTED])
    more = f" and at {len(jumps) - _LISTED} more places" if len(jumps) > _LISTED else ""
    return f"its clock jumps {listed}{more}; the times go on evenly there"


def _kept(tick: int | None, by: int) -> int | None:
    return tick + by if tick is not None and abs(tick + by) < _MOST else None


def _plausible(line: _Line, pts: int | None, dts: int) -> tuple[int | None, int | None]:
    """The times without those that are absurdly far from where the stream is."""
    assert line.next is not None
    near_pts = pts if pts is not None and abs(pts - line.next) <= line.absurd else None
    return near_pts, dts if abs(dts - line.next) <= line.absurd else None
