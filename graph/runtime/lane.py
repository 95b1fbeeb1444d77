"""A lane: stages that one thread calls one after the other, on one CUDA stream.

Within a lane, a stage gets the output of another by a plain call. Links connect lanes. Everything the thread waits for
arrives as a message on one of its sockets.

End of a run: EOS follows the last frame down the links. A stage that fails for good sends ERROR downstream, which makes
the sinks discard incomplete output, and BYE upstream, which makes the stages before it stop.

End of an epoch: the worker sets its `CancelToken`, and every thread returns without sending anything. The stages stay
open, and the lanes are connected again.
"""

import contextlib
import threading
from collections.abc import Sequence

from warpfuse.engine.cuda_streams import NoStream, Stream, on
from warpfuse.graph.links.cancel_token import CancelToken
from warpfuse.graph.links.link_poller import Halted, LinkPoller, NeighbourGone
from warpfuse.graph.metrics.report import RunnerReport
from warpfuse.graph.runtime.failures import Faults, StageFault
from warpfuse.graph.runtime.runner import Runner


class Lane:
    """The runners of some stages, in the order in which they are called. It has a thread for each epoch.

    stream  the CUDA stream of all its stages
    failed  after its thread has ended: the stage whose failure ended it, None at the end of the stream
    """

    def __init__(self, runners: Sequence[Runner], faults: Faults, stream: Stream | None = None) -> None:
        self.runners = list(runners)
        self.failed: str | None = None
        self._faults = faults
        self._stream = stream or NoStream()
        self._working = self.runners[0]
        self._poller = LinkPoller([], [])
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Name of its first stage."""
        return self.runners[0].stage_name

    def start(self, cancel: CancelToken | None = None) -> None:
        """Start the thread of an epoch. Every runner is connected. cancel: ends the thread but not the links."""
        inlets = [inlet for runner in self.runners for inlet in runner.inlets]
        outlets = [outlet for runner in self.runners for outlet in runner.outlets]
        self.failed, self._working = None, self.runners[0]
        self._poller = LinkPoller(inlets, outlets, cancel)
        for runner in self.runners:
            runner.wait_by(self._poller)
        self._thread = threading.Thread(target=self._live, name=f"wf:{self.name}", daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, or for `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """The thread is running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def working(self) -> str:
        """The stage that is being called or whose input is awaited. From any thread."""
        return self._working.stage_name

    def report(self) -> list[RunnerReport]:
        """Figures of the lane besides those of its stages."""
        return []

    def close(self) -> None:
        """Free what the lane holds, before its stages are closed."""

    def disconnect(self) -> None:
        """Close the links and keep their figures. Call it after the thread has ended."""
        for runner in self.runners:
            runner.disconnect()
        self._thread = None

    def _live(self) -> None:
        """The thread's function. It ends the links, unless the epoch is cancelled or the run survives a failure."""
        try:
            with on(self._stream):
                self._work()
        except Halted:
            return
        except NeighbourGone as gone:
            self.failed = gone.origin
        except BaseException as error:  # noqa: BLE001  (recorded, and raised where the run was started)
            if self._faults.spared(StageFault(self.working, error, self._working.at, self._working.passed)):
                return
            self.failed = self.working
        finally:
            for runner in self.runners:
                runner.busy_since = 0
        for runner in self.runners:
            try:
                runner.finish(complete=self.failed is None)
            except BaseException as error:  # noqa: BLE001
                if self._faults.spared(StageFault(runner.stage_name, error)):
                    return
                self.failed = self.failed or runner.stage_name
        with contextlib.suppress(Halted):
            self._poller.end(self.failed)
            for runner in self.runners:
                runner.ended = True

    def _pass_frame(self) -> bool:
        """Process one frame. False at the end of the stream."""
        for runner in self.runners:
            self._working = runner
            if not runner.fire():
                self._check_end(runner)
                return False
        return True

    def _check_end(self, runner: Runner) -> None:
        """The links into a runner have ended: those into the first of the lane end first. Raises RuntimeError."""
        if runner is not self.runners[0]:
            raise RuntimeError(f"the links into {runner.stage_name} ended a frame or more before the others")

    def _work(self) -> None:
        """Process every frame: call each stage in turn, as soon as its links have a frame."""
        self._poller.check()
        while self._pass_frame():
            self._working = self.runners[0]
            self._poller.check()  # a stage checks by itself only when it waits
        for runner in self.runners:
            self._working = runner
            if any(not inlet.plan.delay for inlet in runner.inlets) and runner.gather():
                raise RuntimeError(f"the links into {self.name} ended a frame or more before those of {self.working}")
            runner.drain()
            for outlet in runner.outlets:  # before the next stage: another lane may have to pass the end on to it
                outlet.finish()
