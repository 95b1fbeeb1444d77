"""What the page asks of a running graph, wherever that runs."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.web.pictures import Pictures

Say = Callable[[str], None]


class Controls(Protocol):
    """One run. Every method may be called from any thread, and none waits for a frame but `wait`.

    In this process it is `LocalRun`; one that talks to a run elsewhere has the same methods.
    """

    def settings(self) -> dict[str, Any]:
        """All keys of the graph file as they are now, plain types only."""

    def change(self, keys: dict[str, Any]) -> int:
        """Lay some keys over the settings; returns the version that frames read from now on carry.

        Raises NeedsRestart for keys that were built in, BadInput for what cannot be used; then nothing changed."""

    def stats(self) -> dict[str, Any]:
        """fps, latency_ms, frames, dropped (by reason), stages, backend, precision, device, bundle and size now."""

    def pause(self) -> None:
        """No frame is read until `resume`; of a live source those that come meanwhile are dropped and counted."""

    def resume(self) -> None:
        """Go on reading."""

    def stop(self) -> None:
        """End the stream: what was read is finished, files are whole. Returns at once."""

    def record(self, file: str | None) -> None:
        """Write what is shown from now on to a file, too; None ends that. Raises BadInput."""

    def wait(self) -> Stats:
        """Until the run has ended. Raises what ended it early."""


class OpenRun(Protocol):
    """Starts a run whose pictures go to `pictures`; returns when its first frame can be read."""

    def __call__(
        self, keys: dict[str, Any], config: GraphConfig, pictures: Pictures, say: Say, stop: threading.Event
    ) -> Controls:
        """stop: set, from any thread, it ends the start and the run.

        Raises BadInput or StreamLost, Stopped; then nothing is left running."""
