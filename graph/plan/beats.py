"""Time in beats: the tempo of a run, taps that give it, a schedule of cues. No clock is read: times are arguments."""

import math
import re
from collections import deque
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from warpfuse.stages.settings import StageSettings

SLOWEST_BPM, FASTEST_BPM = 20.0, 400.0

_NS_A_MINUTE = 60e9
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|seconds?|beats?)\s*")
_LONGEST = 100_000.0  # of either unit
_MOST_CUES = 64
_ROUNDING = 1e-4  # beats or seconds: presentation times are whole numbers of their containers' units
_FORGOTTEN_NS = 2_500_000_000  # a longer gap than any two taps of one tempo have
_MOST_TAPS = 9

Unit = Literal["beats", "s"]


def length_of(text: str) -> tuple[float, Unit]:
    """A length and its unit, of "4 beats", "1 beat" or "2.5 s". Raises ValueError."""
    found = _LENGTH.fullmatch(text)
    if found is None or float(found[1]) > _LONGEST:
        raise ValueError(f"expected a number of beats or seconds, as in '4 beats' or '2.5 s', got {text!r}")
    return float(found[1]), "beats" if found[2].startswith("beat") else "s"


def _in_one_form(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"expected a number of beats or seconds, as in '4 beats' or '2.5 s', got {value!r}")
    number, unit = length_of(value)
    return f"{number:g} {unit}"


Length = Annotated[str, BeforeValidator(_in_one_form)]


class ScheduleSettings(StageSettings):
    """Cues one after another, by the times of the frames. What a cue names holds over the settings while it is on.

    What is set by hand while a cue is on holds over the cue, until the next.

    every   how long each cue holds: "4 beats" at the tempo of the run, or "8 s"
    over    the crossfade to each, from its beginning on; at most as long as it holds
    cues    looks by their names, or keys that may change while frames flow
    repeat  after the last comes the first; else the last stays
    on      whether there are cues; off: the settings hold as they are
    """

    every: Length = "4 beats"
    over: Length = "0 beats"
    cues: tuple[str | dict[str, Any], ...] = Field((), max_length=_MOST_CUES)
    repeat: bool = True
    on: bool = True

    @field_validator("every")
    @classmethod
    def _lasts(cls, every: str) -> str:
        if length_of(every)[0] <= 0:
            raise ValueError(f"expected more than nothing, got {every!r}")
        return every

    @model_validator(mode="after")
    def _over_in_time(self) -> "ScheduleSettings":
        (over, over_unit), (every, unit) = length_of(self.over), length_of(self.every)
        if over and (over_unit != unit or over > every):
            raise ValueError(f"over: expected up to {self.every!r}, as long as a cue holds, got {self.over!r}")
        return self

    @property
    def active(self) -> bool:
        """There is a cue that holds."""
        return self.on and bool(self.cues)

    def over_ns(self, bpm: float) -> int:
        """The crossfade at this tempo, in nanoseconds."""
        return length_ns(self.over, bpm)


def length_ns(text: str, bpm: float) -> int:
    """Nanoseconds of a length at this tempo. Raises ValueError."""
    number, unit = length_of(text)
    return round(number * (_NS_A_MINUTE / bpm if unit == "beats" else 1e9))


class BeatClock:
    """Counts beats and nanoseconds by the times of frames. Beat 0 is at time 0; a change of tempo keeps the beat.

    now_ns  time that has passed, of a source whose times begin at 0
    """

    def __init__(self, bpm: float) -> None:
        self.now_ns = 0
        self._bpm = bpm
        self._pts_ns: int | None = None
        self._since_ns, self._since_beats = 0, 0.0  # where the tempo was set

    @property
    def beats(self) -> float:
        """Beats that have passed."""
        return self._since_beats + (self.now_ns - self._since_ns) * self._bpm / _NS_A_MINUTE

    def pass_to(self, pts_ns: int) -> None:
        """A frame of this time. Times that jump back, as of a file that begins anew, let no time pass."""
        self.now_ns = pts_ns if self._pts_ns is None else self.now_ns + max(0, pts_ns - self._pts_ns)
        self._pts_ns = pts_ns

    def change(self, bpm: float, on_beat: bool = False) -> None:
        """Count at this tempo from now on. on_beat: the nearest beat is now."""
        beats = self.beats
        if bpm != self._bpm or on_beat:
            self._since_ns, self._since_beats = self.now_ns, float(round(beats)) if on_beat else beats
            self._bpm = bpm


class CueClock:
    """Which cue of a schedule it is time for."""

    def __init__(self, schedule: ScheduleSettings, clock: BeatClock, start: float = 0.0) -> None:
        """start: when the first cue begins, in the unit of `every`."""
        self._schedule, self._clock, self._start = schedule, clock, start
        self._every, self._unit = length_of(schedule.every)

    def change(self, schedule: ScheduleSettings) -> bool:
        """Another schedule begins at the nearest beat, or now if it counts seconds; the same one goes on: False."""
        if schedule == self._schedule:
            return False
        self._schedule = schedule
        self._every, self._unit = length_of(schedule.every)
        self._start = float(round(self._clock.beats)) if self._unit == "beats" else self._clock.now_ns / 1e9
        return True

    @property
    def turn(self) -> int | None:
        """How many cues came before this one, those that came again too; None: there is none."""
        if not self._schedule.active:
            return None
        now = self._clock.beats if self._unit == "beats" else self._clock.now_ns / 1e9
        passed = max(0, math.floor((now - self._start) / self._every + _ROUNDING))
        return passed if self._schedule.repeat else min(passed, len(self._schedule.cues) - 1)

    @property
    def cue(self) -> int | None:
        """The number of the cue, from 0; None: there is none."""
        turn = self.turn
        return None if turn is None else turn % len(self._schedule.cues)


class TapTempo:
    """The tempo that somebody taps: the mean of the last taps. A pause of 2.5 s begins anew."""

    def __init__(self) -> None:
        self._taps: deque[int] = deque(maxlen=_MOST_TAPS)

    def tap(self, now_ns: int) -> float | None:
        """Beats a minute after a tap at this time, held in the range of `bpm`; None after the first."""
        if self._taps and not 0 < now_ns - self._taps[-1] <= _FORGOTTEN_NS:
            self._taps.clear()
        self._taps.append(now_ns)
        if len(self._taps) < 2:
            return None
        bpm = _NS_A_MINUTE * (len(self._taps) - 1) / (self._taps[-1] - self._taps[0])
        return round(min(max(bpm, SLOWEST_BPM), FASTEST_BPM), 2)
