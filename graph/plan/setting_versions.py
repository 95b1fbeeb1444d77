"""Versions of the live settings. A frame carries the number it is to be processed with, so a change reaches every
stage between the same two frames, whatever the stages are doing when it is made."""

import threading
from typing import Any


class SettingsBook:
    """Settings by version. Thread-safe. Stages look up a version when a frame brings a new number.

    A version is added to the book of every worker before the book beside the source begins to stamp frames with it.
    """

    def __init__(self, first: Any, version: int = 0) -> None:
        self._lock = threading.Lock()
        self._versions = {version: first}
        self._newest = version
        self._next_seq = 0

    @property
    def newest(self) -> int:
        """The version that new frames are stamped with."""
        return self._newest

    def publish(self, settings: Any) -> int:
        """Add the next version; frames read from now on carry it."""
        with self._lock:
            version = self._newest + 1
            self._add(version, settings)
            self._newest = version
        return version

    def add(self, version: int, settings: Any) -> None:
        """Make a version known. No frame carries it yet."""
        with self._lock:
            self._add(version, settings)

    def begin(self, version: int) -> int:
        """Frames read from now on carry a version that was added. Returns the number of the first of them."""
        with self._lock:
            if version not in self._versions:
                raise KeyError(f"version {version} of the settings was begun before it was added")
            self._newest = version
            return self._next_seq

    def stamped(self, seq: int) -> int:
        """The version of frame `seq`; the source asks once for each frame, in order."""
        with self._lock:
            self._next_seq = seq + 1
            return self._newest

    def __getitem__(self, version: int) -> Any:
        with self._lock:
            return self._versions[version]

    def _add(self, version: int, settings: Any) -> None:
        self._versions[version] = settings
        # Note: old versions. A frame in flight is at most the sum of all slots behind; 1,000 covers any graph.
        self._versions.pop(version - 1000, None)
