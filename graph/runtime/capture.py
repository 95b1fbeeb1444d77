"""Reading a live source: always, in a thread of its own, so that the newest frame is at hand when there is a credit.

A thread that blocks in `read` would see a credit only with the next frame, one period late.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import replace

from warpfuse.graph.runtime.runner import Clock
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.stage import Recovering, Source


class Capture:
    """The newest frame of a live source, stamped with its arrival. One thread takes; it polls `fd`.

    dropped  frames that a newer one replaced before they were taken
    read     frames that came from the source
    ended    the source has ended, or raised `error`
    """

    def __init__(self, source: Source, clock: Clock, also: Callable[[RawFrame], None] = lambda frame: None) -> None:
        self.dropped = 0
        self.read = 0
        self.ended = False
        self.error: BaseException | None = None
        self._source = source
        self._clock = clock
        self._also = also
        self._lock = threading.Lock()
        self._newest: RawFrame | None = None
        self._closing = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name="wf:capture", daemon=True)

    @property
    def fd(self) -> int:
        """Readable when there is something to take."""
        return self._wake_read

    def start(self) -> None:
        """Begin to read. A second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def take(self) -> RawFrame | None:
        """The newest frame, if it was not taken before."""
        with self._lock:
            frame, self._newest = self._newest, None
            if frame is not None and not self.ended:
                os.read(self._wake_read, 1)
        return frame

    def close(self) -> None:
        """Stop reading, after the frame that is being read. Closes the source."""
        self._closing = True
        if isinstance(self._source, Recovering):
            self._source.interrupt()
        if self._thread.ident is not None:
            self._thread.join()
        self._source.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        try:
            while not self._closing and (raw := self._source.read()) is not None:
                frame = RawFrame(
                    replace(raw.stamp, arrived_ns=raw.stamp.arrived_ns or self._clock()), raw.rgb, raw.sound
                )
                self._put(frame)
                self._also(frame)
        except BaseException as error:  # noqa: BLE001  (raised by the thread that takes)
            self.error = error
        with self._lock:
            self.ended = True
            if self._newest is None:
                os.write(self._wake_write, b"!")

    def _put(self, frame: RawFrame) -> None:
        with self._lock:
            self.read += 1
            if self._newest is None:
                os.write(self._wake_write, b"!")
            else:
                self.dropped += 1
            self._newest = frame
