"""Reading a live source in a thread of its own, so that its newest frame is ready when a credit arrives.

A thread that both reads the source and waits for credits would notice a credit only after the next frame, a frame
period late.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.graph.runtime.runner import Clock
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import Recovering, Source
from warpfuse.stages.timing import Latest, Waker


class Capture:
    """The newest frame of a live source, stamped with the time of its arrival. One thread calls `take`, and polls `fd`.

    also   called with every frame, by the reading thread
    error  what the source raised; None: nothing
    """

    def __init__(self, source: Source, clock: Clock, also: Callable[[RawFrame], None] = lambda frame: None) -> None:
        self.error: BaseException | None = None
        self._source = source
        self._clock = clock
        self._also = also
        self._closing = False
        self._waker = Waker()
        self._latest: Latest[RawFrame] = Latest(self._waker)
        self._thread = threading.Thread(target=self._run, name="wf:capture", daemon=True)

    @property
    def fd(self) -> int:
        """File descriptor, readable when there is a frame to take and at the end."""
        return self._waker.fd

    @property
    def dropped(self) -> int:
        """Number of frames that were replaced by a newer one before they were taken."""
        return self._latest.skipped

    @property
    def read(self) -> int:
        """Number of frames read from the source."""
        return self._latest.received

    @property
    def ended(self) -> bool:
        """The source has ended, or raised `error`, and every frame was taken or dropped."""
        return self._latest.over

    def start(self) -> None:
        """Start the reading thread. A second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def take(self) -> RawFrame | None:
        """The newest frame; None if it was taken before."""
        return self._latest.take()

    def close(self) -> None:
        """Stop reading after the frame that is being read, and close the source."""
        self._closing = True
        if isinstance(self._source, Recovering):
            self._source.interrupt()
        if self._thread.ident is not None:
            self._thread.join()
        self._source.close()
        self._waker.close()

    def _run(self) -> None:
        try:
            while not self._closing and (raw := self._source.read()) is not None:
                frame = raw.stamped(replace(raw.stamp, arrived_ns=raw.stamp.arrived_ns or self._clock()))
                self._latest.put(frame)
                self._also(frame)
        except BaseException as error:  # noqa: BLE001  (raised by the thread that takes)
            self.error = error
        self._latest.close()
