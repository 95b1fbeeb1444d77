"""Watch a source that may break and come back, from outside the thread that reads it."""

import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.graph.meters import Stats
from warpfuse.stages.stage import Recovering, Source


class Watch:
    """Tells of a source's states while a run lasts, and of its loss when the run has ended. Of a file: nothing.

    say   called with one line for each change
    stop  when it is set the source is interrupted: a read that waits for a dead camera ends at once
    """

    def __init__(self, source: Source, say: Callable[[str], None], stop: threading.Event) -> None:
        self._source = source if isinstance(source, Recovering) else None
        self._say = say
        self._stop = stop

    def over(self, progress: Callable[[int], None] | None) -> Callable[[int], None]:
        """`progress` with the watch before it: to be called a few times a second."""

        def tick(frames: int) -> None:
            self._look()
            if progress is not None:
                progress(frames)

        return tick

    def concluded(self, stats: Stats) -> Stats:
        """The figures with the source's own.

        Raises SourceLost, with the figures as its `stats`, if the source is gone for good: by then what came before is
        finished and kept."""
        if self._source is None:
            return stats
        self._look()
        stats = replace(stats, source=self._source.report())
        lost = self._source.lost
        if lost is not None:
            lost.stats = stats
            raise lost
        return stats

    def _look(self) -> None:
        if self._source is not None:
            for line in self._source.news():
                self._say(line)
            if self._stop.is_set():
                self._source.interrupt()
