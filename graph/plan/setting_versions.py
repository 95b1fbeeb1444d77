"""Versions of the live settings. A frame carries the number it is to be processed with, so a change reaches every
stage between the same two frames, whatever the stages are doing when it is made."""

import threading
from dataclasses import dataclass, field, replace

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.beats import BeatClock, CueClock
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.crossfade import Crossfades, Timed, is_named, shown
from warpfuse.graph.plan.cues import named_by_cue, with_cue
from warpfuse.stages.interim import Interim


@dataclass(frozen=True, slots=True)
class _Version:
    """Settings, and how frames come to them.

    cues  those that were asked for, by number, and by the keys that were set by hand since
    """

    config: GraphConfig
    over_ns: int = 0
    named: tuple[str, ...] = ()
    on_beat: bool = False
    asked_ns: int = 0
    cues: dict[tuple[int | None, tuple[str, ...]], GraphConfig] = field(default_factory=dict)

    def with_cue(self, number: int | None, by_hand: tuple[str, ...] = ()) -> GraphConfig:
        if (number, by_hand) not in self.cues:
            self.cues[number, by_hand] = self._with_cue(number, by_hand)
        return self.cues[number, by_hand]

    def _with_cue(self, number: int | None, by_hand: tuple[str, ...]) -> GraphConfig:
        try:
            return with_cue(self.config, number, by_hand)
        except ConfigError:
            # The settings and every whole cue were checked. What the hand leaves of a cue may not go together, as two
            # thresholds of edges: then the settings hold, and nothing of the cue.
            if not by_hand:
                raise
            return self.config


class SettingsBook:
    """Settings by version. Thread-safe. Stages look up a version when a frame brings a new number.

    A version is added to the book of every worker before the book beside the source begins to stamp frames with it.
    """

    def __init__(self, first: GraphConfig, version: int = 0) -> None:
        self._lock = threading.Lock()
        self._versions = {version: _Version(first)}
        self._newest = version
        self._begun: list[_Version] = []  # since the last frame
        self._next_seq = 0
        self._clock = BeatClock(first.bpm)
        self._cues = CueClock(first.schedule, self._clock)
        self._turn: int | None = None
        self._cue: int | None = None
        self._by_hand: tuple[str, ...] = ()
        self._crossfades = Crossfades(first)
        self._first = True

    @property
    def newest(self) -> int:
        """The version that new frames are stamped with."""
        return self._newest

    def publish(self, config: GraphConfig, change: Timed | None = None, asked_ns: int = 0) -> tuple[int, int]:
        """Add the next version and begin it. Returns its number, and the number of the first frame with it."""
        version = self._newest + 1
        self.add(version, config, change, asked_ns)
        return version, self.begin(version)

    def add(self, version: int, config: GraphConfig, change: Timed | None = None, asked_ns: int = 0) -> None:
        """Add a version that no frame carries yet.

        change    the change that led to it; None: without a crossfade
        asked_ns  the run's clock when the change was asked for; 0: unknown
        """
        with self._lock:
            how = (change.over_ns, change.named, change.on_beat) if change is not None else (0, (), False)
            self._versions[version] = _Version(config, *how, asked_ns)
            # Note: old versions. Frames in flight are at most the sum of all slots; 1,000 covers any graph.
            self._versions.pop(version - 1000, None)

    def begin(self, version: int) -> int:
        """Frames read from now on carry a version that was added. Returns the number of the first of them."""
        with self._lock:
            if version not in self._versions:
                raise KeyError(f"version {version} of the settings was begun before it was added")
            if version != self._newest:
                self._begun.append(self._versions[version])
                self._newest = version
            return self._next_seq

    def stamped(self, seq: int, pts_ns: int) -> tuple[int, Interim | None]:
        """The version of frame `seq`, and what stands in the place of some of it; asked once a frame, in order."""
        with self._lock:
            self._next_seq = seq + 1
            self._clock.pass_to(pts_ns)
            for begun in self._begun:
                self._take(begun)
            self._begun.clear()
            self._follow(self._versions[self._newest])
            interim = self._crossfades.at(pts_ns)
            if self._cue is None:
                return self._newest, interim
            return self._newest, replace(interim or Interim(), cue=self._cue, by_hand=self._by_hand)

    def _take(self, begun: _Version) -> None:
        """The settings lead to a version that has begun, with the cue that it is time for there."""
        self._clock.change(begun.config.bpm, begun.on_beat)
        over_ns = begun.over_ns
        another = self._cues.change(begun.config.schedule)
        if self._next_turn() or another:
            self._by_hand = ()
            if self._cue is not None:
                over_ns = over_ns or begun.config.schedule.over_ns(begun.config.bpm)
        elif self._cue is not None:
            named = {path for path in named_by_cue(begun.config, self._cue) if is_named(path, begun.named)}
            self._by_hand = tuple(sorted({*self._by_hand, *named}))
        self._crossfades.change(begun.with_cue(self._cue, self._by_hand), over_ns, begun.named)

    def _follow(self, newest: _Version) -> None:
        """Come to the cue that it is time for; the cue of the first frame is no change."""
        if self._next_turn():
            self._by_hand = ()
            over_ns = 0 if self._first else newest.config.schedule.over_ns(newest.config.bpm)
            self._crossfades.change(newest.with_cue(self._cue), over_ns)
        self._first = False

    def _next_turn(self) -> bool:
        """It is time for another cue, or for none."""
        before, self._turn = self._turn, self._cues.turn
        self._cue = None if self._turn is None else self._cues.cue
        return self._turn != before

    def shown(self, version: int, interim: Interim | None) -> GraphConfig:
        """The configuration of a frame: of its version, with its cue, and what is on its way."""
        cue, by_hand = (None, ()) if interim is None else (interim.cue, interim.by_hand)
        with self._lock:
            config = self._versions[version].with_cue(cue, by_hand)
        return shown(config, interim)

    def asked_ns(self, version: int) -> int:
        """The run's clock when a version was asked for; 0 for the first, and where it is unknown."""
        with self._lock:
            known = self._versions.get(version)
            return known.asked_ns if known is not None else 0

    def __getitem__(self, version: int) -> GraphConfig:
        with self._lock:
            return self._versions[version].config
