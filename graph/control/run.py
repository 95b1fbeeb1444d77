"""The protocol of a run under way. Runs in threads, in processes and of several streams all implement it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from warpfuse.graph.control.messages import Applied, Grant, HostBeat, StartLife, StreamCounts
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.metrics.trace import Span

Progress = Callable[[int, int | None], None]
"""Called a few times a second with the number of frames written and, if it is known, the number expected."""


class Run(Protocol):
    """One run. Call `start`, then `wait`, then `close`. One thread calls `wait` once, and the call drives the run.

    The other methods may be called from any thread while the run is under way.

    streams  the streams by name; a run of one stream has itself under the name ""
    paused   no frame is read until `resume`
    """

    @property
    def streams(self) -> Mapping[str, "Run"]:
        """See the class."""

    @property
    def paused(self) -> bool:
        """See the class."""

    def start(self) -> None:
        """Start the run, whose stages are open."""

    def wait(self, progress: Progress | None = None) -> Stats:
        """Wait until the run has ended. Returns its figures. Raises the error that ended it early."""

    def close(self) -> None:
        """End the run if it has not ended, and free everything. Sinks discard an incomplete output."""

    def settings(self) -> dict[str, Any]:
        """All keys of the graph file with their present values, as plain types."""

    def change(self, keys: Mapping[str, Any]) -> Applied:
        """Change some keys of the settings. Returns the new version and the first frame that carries it.

        `over_s` among the keys: time in seconds, by the times of the frames, in which fractional numbers and the prompt
        change over from the present to the new value. Other keys take effect at once.

        Raises NeedsRestart for keys that take effect only when a run is opened, BadInput for unusable keys or values.
        After an error nothing has changed.
        """

    def stats(self) -> Stats:
        """The figures so far."""

    def workers(self) -> dict[str, list[str]]:
        """The stages of each worker."""

    def spans(self) -> dict[str, list[Span]]:
        """The calls of the stages of each worker; empty unless the run was opened with a trace."""

    def pause(self) -> None:
        """Process no frame until `resume`. Frames of a live source are dropped meanwhile, and counted."""

    def resume(self) -> None:
        """End the pause."""

    def snapshot(self) -> bytes:
        """The picture that the first sink showed last, as a PNG file; empty before the first. Raises BadInput."""

    def stop(self) -> None:
        """End the stream. Returns at once; the frames that were read are finished and files are complete."""


@runtime_checkable
class ManyStreams(Run, Protocol):
    """A run of several streams. Streams may be added and removed while it is under way."""

    def add(self, name: str, keys: Mapping[str, Any]) -> str:
        """Add a stream with these keys over the common ones. Returns its name. name: "" names it after its source.

        Raises BadInput or StreamLost when the stream cannot start. The other streams go on.
        """

    def remove(self, name: str) -> None:
        """Remove a stream. Returns when the frames it read are finished and its files complete.

        Raises ConfigError for an unknown name.
        """

    def counts(self) -> dict[str, StreamCounts]:
        """The frame counts by stream, of the streams under way and of those that ended last."""


class LeasedStreams(Protocol):
    """The streams of a host of a cluster, which run by leave of its controller. Any thread may call it."""

    def beat(self, grants: Mapping[str, Grant]) -> HostBeat:
        """Renew the leases that are granted, and tell what runs here."""

    def begin(self, order: StartLife) -> None:
        """Start a life of a stream, and return at once. Raises ConfigError when it is refused."""

    def end(self, name: str, generation: int) -> None:
        """End a life of a stream, and return at once. One that is over is forgotten. Another life: nothing is done."""
