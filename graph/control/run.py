"""A run under way, and what may be asked of it: the same whether it is threads, processes or several streams."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from warpfuse.graph.control.messages import Applied, StreamCounts
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.trace import Span

Progress = Callable[[int, int | None], None]
"""Told a few times a second how many frames are written and, if that is known, how many are expected."""


class Run(Protocol):
    """One run. `start`, then `wait`, which one thread calls once and which drives the run, then `close`.

    The other methods may be called from any thread while the run is under way.

    streams  the streams of a run of several by their names; of a run of one stream itself, under the name ""
    paused   the source is held
    """

    @property
    def streams(self) -> Mapping[str, "Run"]:
        """See the class."""

    @property
    def paused(self) -> bool:
        """See the class."""

    def start(self) -> None:
        """Begin. Every stage is open."""

    def wait(self, progress: Progress | None = None) -> Stats:
        """Until the run has ended; its figures. Raises what ended it early."""

    def close(self) -> None:
        """End the run if it has not ended, and free everything; sinks that are not complete discard."""

    def settings(self) -> dict[str, Any]:
        """All keys of the graph file as they are now, plain types only."""

    def change(self, keys: Mapping[str, Any]) -> Applied:
        """Lay some keys over the settings. Returns their version and the first frame that carries it.

        `over_s` among the keys: seconds, by the times of the frames, in which the fractional numbers and the prompt
        come there from what is shown; what else is named holds at once.

        Raises NeedsRestart for keys that were built in, BadInput for what cannot be used; then nothing changed.
        """

    def stats(self) -> Stats:
        """The figures so far."""

    def workers(self) -> dict[str, list[str]]:
        """The stages of each worker."""

    def spans(self) -> dict[str, list[Span]]:
        """The calls of the stages of each worker, if the run keeps them."""

    def pause(self) -> None:
        """Read no frame until `resume`; of a live source those that come meanwhile are dropped and counted."""

    def resume(self) -> None:
        """Read on."""

    def snapshot(self) -> bytes:
        """The picture that the first sink showed last, as PNG; empty before the first. Raises BadInput."""

    def stop(self) -> None:
        """End the stream: what was read is finished, files are whole. Returns at once."""


@runtime_checkable
class ManyStreams(Run, Protocol):
    """A run of several streams, which may join and leave while it is under way."""

    def add(self, name: str, keys: Mapping[str, Any]) -> str:
        """Have a stream join, of these keys over the common ones; its name, "" for one after its source.

        Raises BadInput, StreamLost: what keeps it from starting; then the others go on.
        """

    def remove(self, name: str) -> None:
        """Have a stream leave: what it read is finished, its files are whole when this returns. Raises ConfigError."""

    def counts(self) -> dict[str, StreamCounts]:
        """The frames of every stream under way, and of the newest of those that are over, by their names."""
