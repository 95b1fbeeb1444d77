"""Stages that work in turns, called one after the other in one thread and on one CUDA stream.

Inside a lane a stage is called with what another one gave; links are between lanes. Everything the thread waits for
comes as a message on one of its own sockets.

How a run ends: EOS travels down the links behind the last frame. A stage that fails for good sends ERROR down, which
makes the sinks discard what is not complete, and BYE up, which makes everything before it stop.

How an epoch ends: the worker sets its `CancelToken`, every thread returns without a word to its links, the stages stay
open, and the lanes are connected anew.
"""

import contextlib
import threading
from collections.abc import Sequence

from warpfuse.engine.cuda_streams import NoStream, Stream, on
from warpfuse.graph.links.cancel_token import CancelToken
from warpfuse.graph.links.link_poller import Halted, LinkPoller, NeighbourGone
from warpfuse.graph.runtime.failures import Faults, StageFault
from warpfuse.graph.runtime.runner import Runner


class Lane:
    """The runners of some stages, in the order in which they are called; a thread for each epoch.

    stream  all of them work on it
    failed  once a thread has ended: the stage because of which it did, None at the end of the stream
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
        """That of its first stage."""
        return self.runners[0].stage_name

    def start(self, cancel: CancelToken | None = None) -> None:
        """Start the thread of an epoch; every runner is connected. cancel: ends it without ending the links."""
        inlets = [inlet for runner in self.runners for inlet in runner.inlets]
        outlets = [outlet for runner in self.runners for outlet in runner.outlets]
        self.failed, self._working = None, self.runners[0]
        self._poller = LinkPoller(inlets, outlets, cancel)
        for runner in self.runners:
            runner.wait_by(self._poller)
        self._thread = threading.Thread(target=self._live, name=f"wf:{self.name}", daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """The thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def working(self) -> str:
        """The stage that is called, or waited for, just now. From any thread."""
        return self._working.stage_name

    def disconnect(self) -> None:
        """Close the links and keep their figures. After the thread has ended."""
        for runner in self.runners:
            runner.disconnect()
        self._thread = None

    def _live(self) -> None:
        """The thread: work, then end the links, unless the epoch was over or the failure is spared."""
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

    def _work(self) -> None:
        """Every frame: each stage in turn, a call as soon as what its links bring is there."""
        first = self._working
        while first.fire():
            for runner in self.runners[1:]:
                self._working = runner
                if not runner.fire():
                    raise RuntimeError(f"the links into {runner.stage_name} ended a frame or more before the others")
            self._working = first
        for runner in self.runners:
            self._working = runner
            if any(not inlet.plan.delay for inlet in runner.inlets) and runner.gather():
                raise RuntimeError(f"the links into {self.name} ended a frame or more before those of {self.working}")
            runner.drain()
            for outlet in runner.outlets:  # now: the end may have to come back from another lane to the next stage
                outlet.finish()
