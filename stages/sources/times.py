"""Presentation times, repaired from a container's times.

`PacketTimes` removes jumps from the times of a file's packets, for all streams together. `Times` gives each decoded
frame a time of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

_NS = 1_000_000_000
_LEAP = 10  # s: gaps within a recording are shorter, and the clock of another recording differs by more
_BACK = Fraction(1, 10)  # s by which decoding times may decrease
_ABSURD = 30 * 3600  # s; in formats whose clock does not start again, a larger deviation is damage
_DEEPEST = 20  # largest difference of decoding and presentation, packets
_MOST = 1 << 62  # ticks; FFmpeg has 64 bits
_LATE = 1  # s after a joint by which every stream has passed it
_LISTED = 3  # jumps that are listed


@dataclass(slots=True)
class _Part:
    """A part of a file with one clock. offset: s to add to its times; end: repaired time at which the next begins."""

    offset: Fraction
    end: Fraction | None = None


@dataclass(slots=True)
class _Line:
    """The position of one stream, in its ticks after repair.

    usual               usual duration of a packet
    part                its present part
    dts, next           decoding time of the last packet, and the expected time of the next
    shift               s added to its first packet
    leap, back, absurd  the limits above, in its ticks
    """

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
        """Ticks to add to the stream's times."""
        return round(self.part.offset / self.time_base) if self.part is not None and self.part.offset else 0

    def __post_init__(self) -> None:
        self.leap, self.back, self.absurd = (round(s / self.time_base) for s in (_LEAP, _BACK, _ABSURD))


@dataclass(frozen=True, slots=True)
class Jump:
    """A jump of a file's clock. at: s from its first packet; by: s."""

    at: Fraction
    by: Fraction


class PacketTimes:
    """Removes jumps from the times of packets, where the program ffmpeg does so.

    In formats whose clock may start again (MPEG-TS and PS, Ogg, HLS), a new part begins where decoding times jump by
    more than ten seconds, or decrease by more than a tenth. The part is shifted so that the stream continues without a
    gap. The other streams are shifted by the same amount once they reach the part, so that picture and sound stay
    synchronous within it. In other formats, only times that are wrong by 30 hours or more are dropped.

    streams      stream index -> (time base in s, usual duration of a packet in ticks)
    starts_anew  the format's clock may start again
    leaps        number of shifts of streams so far; a joint shifts each stream once
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
        """Repaired (pts, dts) of the next packet in the file's order, in ticks of its stream; None where unknown."""
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
        """Seconds added to the first packet of a stream; 0 before that packet."""
        return self._lines[index].shift if index in self._lines else Fraction(0)

    def forget(self) -> None:
        """Drop the list of jumps, which would grow without end for a live source."""
        self._jumps.clear()

    @property
    def jumps(self) -> list[Jump]:
        """The jumps so far."""
        return [*self._jumps]

    def _placed(self, line: _Line, pts: int | None, dts: int | None) -> tuple[int | None, int | None]:
        """The times of a packet, shifted by its part."""
        meant = line.next
        if meant is None and self._last is not None:  # the first packet of a stream is compared with other streams
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
                pts = None  # no decoder delays a picture by so much
        return pts, dts

    def _leaps(self, line: _Line, dts: int, meant: int) -> bool:
        return abs(dts - meant) > line.leap or (line.dts is not None and dts + line.back < line.dts)

    def _outlived(self, line: _Line) -> bool:
        """The stream is past the end of its part: it has reached the next one without a jump of its own."""
        end = None if line.part is None else line.part.end
        return end is not None and line.next is not None and line.next * line.time_base > end + _LATE

    def _follow(self, line: _Line, dts: int, meant: int) -> None:
        """Move the stream to the newest part, unless its times do not fit there."""
        part, line.part = line.part, self._part
        if self._leaps(line, dts + line.ticks, meant):
            line.part = part
        else:
            self.leaps += 1

    def _enter(self, line: _Line, dts: int, meant: int) -> None:
        """Move the stream to the next part: the newest, if its times fit there, else a new one that begins here."""
        self.leaps += 1
        if line.part is not self._part:
            line.part = self._part
            if not self._leaps(line, dts + line.ticks, meant):
                return
            over = meant - (dts + line.ticks)
            if 0 < over <= line.leap:  # this stream's old part was longer, so the new part is shifted to its end
                self._part.offset += over * line.time_base
                return
        leap = (dts + line.ticks - meant) * line.time_base
        self._part.end = meant * line.time_base
        line.part = self._part = _Part(self._part.offset - leap)
        self._jumps.append(Jump(meant * line.time_base - self._zero, leap))


class Times:
    """Gives frames strictly increasing times. The stream's times may be missing, repeated or decreasing.

    time_base  of the stream, s
    start      tick of time zero
    rate       frames a second; a frame without a time is one period after the last frame
    mended     number of times so far that were missing or did not increase
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
        """The time of the next frame, ns from the start of the stream, rounded from the exact value."""
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
    """Chooses a frame's time: its presentation time or its packet's decoding time, whichever has decreased less often.

    Containers without presentation times (AVI) have the decoding time only.
    """

    def __init__(self) -> None:
        self._pts = self._dts = -_MOST
        self._bad_pts = self._bad_dts = 0

    def __call__(self, pts: int | None, dts: int | None) -> int | None:
        """The more reliable of the two times; None without either."""
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
    """A line for the user about jumps; None without any."""
    if not jumps:
        return None
    listed = ", ".join(f"by {float(jump.by):+.1f} s at {float(jump.at):.1f} s" for jump in jumps[:_LISTED])
    more = f" and at {len(jumps) - _LISTED} more places" if len(jumps) > _LISTED else ""
    return f"its clock jumps {listed}{more}; the times go on evenly there"


def _kept(tick: int | None, by: int) -> int | None:
    return tick + by if tick is not None and abs(tick + by) < _MOST else None


def _plausible(line: _Line, pts: int | None, dts: int) -> tuple[int | None, int | None]:
    """The times, with None for a time that is absurdly far from the stream's position."""
    assert line.next is not None
    near_pts = pts if pts is not None and abs(pts - line.next) <= line.absurd else None
    return near_pts, dts if abs(dts - line.next) <= line.absurd else None
