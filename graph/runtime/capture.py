"""Reading a live source: always, in a thread of its own, so that the newest frame is at hand when there is a credit.

A thread that blocks in `read` would see a credit only with the next frame, one period late.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.graph.runtime.runner import Clock
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import Recovering, Source
from warpfuse.stages.timing import Latest, Waker


class Capture:
    """The newest frame of a live source, stamped with its arrival. One thread takes; it polls `fd`.

    error  what the source raised
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
        """Readable when there is something to take, and at the end."""
        return self._waker.fd

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before they were taken."""
        return self._latest.skipped

    @property
    def read(self) -> int:
        """Frames that came from the source."""
        return self._latest.received

    @property
    def ended(self) -> bool:
        """The source has ended, or raised `error`, and every frame was taken or dropped."""
        return self._latest.over

    def start(self) -> None:
        """Begin to read. A second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def take(self) -> RawFrame | None:
        """The newest frame, if it was not taken before."""
        return self._latest.take()

    def close(self) -> None:
        """Stop reading, after the frame that is being read. Closes the source."""
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
                frame = RawFrame(
                    replace(raw.stamp, arrived_ns=raw.stamp.arrived_ns or self._clock()), raw.rgb, raw.sound
                )
                self._latest.put(frame)
                self._also(frame)
        except BaseException as error:  # noqa: BLE001  (raised by the thread that takes)
            self.error = error
        self._latest.close()
