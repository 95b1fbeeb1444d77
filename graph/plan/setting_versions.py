"""Versions of the live settings.

A frame carries the number of the version with which it is processed. So a change takes effect in all stages at the same
frame, whatever they are doing at that time.
"""

import threading
from dataclasses import dataclass

from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.crossfade import Crossfades, Timed
from warpfuse.stages.interim import Interim


@dataclass(frozen=True, slots=True)
class _Version:
    """A version: its settings, and the crossfade to them (`Timed`)."""

    config: GraphConfig
    over_ns: int = 0
    named: tuple[str, ...] = ()
    asked_ns: int = 0


class SettingsBook:
    """Settings by version. Thread-safe. A stage looks a version up when a frame carries a new number.

    A version is added to the book of every worker before the book beside the source begins to stamp frames with it.
    """

    def __init__(self, first: GraphConfig, version: int = 0) -> None:
        self._lock = threading.Lock()
        self._versions = {version: _Version(first)}
        self._crossfades = Crossfades(first)
        self._newest = version
        self._next_seq = 0

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
            over_ns, named = (change.over_ns, change.named) if change is not None else (0, ())
            self._versions[version] = _Version(config, over_ns, named, asked_ns)
            # Note: old versions. Frames in flight are at most the sum of all slots; 1,000 covers any graph.
            self._versions.pop(version - 1000, None)

    def begin(self, version: int) -> int:
        """Stamp frames read from now on with a version that was added. Returns the number of the first frame."""
        with self._lock:
            if version not in self._versions:
                raise KeyError(f"version {version} of the settings was begun before it was added")
            if version != self._newest:
                wanted = self._versions[version]
                self._crossfades.change(wanted.config, wanted.over_ns, wanted.named)
                self._newest = version
            return self._next_seq

    def stamped(self, seq: int, pts_ns: int) -> tuple[int, Interim | None]:
        """The version of frame `seq` and its interim values in a crossfade. To be called once a frame, in order."""
        with self._lock:
            self._next_seq = seq + 1
            return self._newest, self._crossfades.at(pts_ns)

    def asked_ns(self, version: int) -> int:
        """The run's clock when a version was asked for; 0 for the first, and where it is unknown."""
        with self._lock:
            known = self._versions.get(version)
            return known.asked_ns if known is not None else 0

    def __getitem__(self, version: int) -> GraphConfig:
        with self._lock:
            return self._versions[version].config
