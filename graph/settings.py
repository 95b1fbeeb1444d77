"""Versions of the live settings. A frame carries the number it is to be processed with, so a change reaches every
stage between the same two frames, whatever the stages are doing when it is made."""

import threading
from typing import Any


class SettingsBook:
    """Settings by version. Thread-safe. Stages look up a version when a frame brings a new number."""

    def __init__(self, first: Any) -> None:
        self._lock = threading.Lock()
        self._versions = {0: first}
        self._newest = 0

    @property
    def newest(self) -> int:
        """The version that new frames are stamped with."""
        return self._newest

    def publish(self, settings: Any) -> int:
        """Add a version; frames read from now on carry it."""
        with self._lock:
            version = self._newest + 1
            self._versions[version] = settings
            # Note: old versions. A frame in flight is at most the sum of all slots behind; 1,000 covers any graph.
            self._versions.pop(version - 1000, None)
            self._newest = version
        return version

    def __getitem__(self, version: int) -> Any:
        with self._lock:
            return self._versions[version]
