"""The sink of a camera. A thread of its own sends pictures at a constant rate, whatever the graph does."""

import threading
import time
from fractions import Fraction
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from warpfuse.stages.errors import SinkLost
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.camera_address import OnFault
from warpfuse.stages.sinks.latest_picture import LatestPicture, TakenPicture
from warpfuse.stages.sinks.playback import Playback
from warpfuse.stages.stage import VideoInfo
from warpfuse.stages.timing import Ticker

Shown = Literal["styled", "raw", "held"]

_FAULT_FRAMES = 3
_LEAST_FAULT_NS = 1_000_000_000
_BLACK = 16  # not 0, since some programs take a fully black picture for a covered camera


class Output(Protocol):
    """A device that shows pictures."""

    def send(self, rgb: npt.NDArray[np.uint8]) -> Any:
        """Show uint8 RGB [h, w, 3]. Raises OSError when the device is gone."""

    def close(self) -> Any:
        """Close the device."""


class _Source:
    """The source's newest picture, of any size. One thread puts, one takes.

    It is resized to `size` only when it is shown, which is during a fault.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._pictures: LatestPicture | None = None
        self._taken: npt.NDArray[np.uint8] | None = None
        self._fitted: npt.NDArray[np.uint8] | None = None

    def put(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Copy a picture in. Never waits."""
        size = rgb.shape[1], rgb.shape[0]
        if self._pictures is None or self._pictures.size != size:
            self._pictures = LatestPicture(size)
        self._pictures.put(rgb, 0)

    def take(self) -> bool:
        """Take the newest picture. False when there is none since the last call."""
        picture = None if self._pictures is None else self._pictures.take()
        if picture is not None:
            self._taken, self._fitted = picture.rgb, None
        return picture is not None

    def fitted(self) -> npt.NDArray[np.uint8]:
        """The picture taken last, resized to `size`."""
        assert self._taken is not None
        if self._fitted is None:
            width, height = self._size
            same = self._taken.shape[:2] == (height, width)
            shown = self._taken if same else cv2.resize(self._taken, self._size, interpolation=cv2.INTER_AREA)
            self._fitted = np.asarray(shown, np.uint8)
        return self._fitted


class CameraThread:
    """The sink of a camera. It sends a picture at every tick from its opening to its closing.

    The pictures are black first, then the newest styled ones, and during a fault as `on_fault` says. `write` never
    waits for the device.

    raw_wanted  the pictures of the source are to be passed to `write_raw`, for faults
    sent        number of ticks with a picture
    repeated    number of ticks without a new picture
    bridged     number of ticks with a picture of the source
    skipped     number of ticks skipped because the machine was late
    """

    def __init__(
        self, name: str, output: Output, info: VideoInfo, size: tuple[int, int], fps: Fraction, on_fault: OnFault
    ) -> None:
        self._name, self._output, self._fps, self._on_fault = name, output, fps, on_fault
        self.raw_wanted = on_fault == "passthrough"
        self.sent = self.repeated = self.skipped = self.bridged = 0
        self._playback = Playback(info)
        self._styled = LatestPicture(size)
        self._raw = _Source(size) if self.raw_wanted else None
        self._closing = threading.Event()
        self._error: OSError | None = None
        self._dark = np.full((size[1], size[0], 3), _BLACK, np.uint8)
        self._thread = threading.Thread(target=self._run, name="wf:camera", daemon=True)
        self._thread.start()

    @property
    def notes(self) -> list[str]:
        """The figures of the camera, in one line."""
        bridged = f", {self.bridged} by the source's picture" if self.bridged else ""
        return [
            f"{self._name}: {self.sent} pictures at {float(self._fps):g} fps, {self.repeated} repeated{bridged}, "
            f"{self._styled.dropped} frames not shown, {self.skipped} ticks late"
        ]

    def write(self, frame: RawFrame) -> None:
        """Show this frame from the next tick on. Raises SinkLost when the device is gone."""
        due_ns = self._playback.due(frame)
        if self._error is not None:
            raise SinkLost(f"{self._name}: the camera is gone ({self._error.strerror}). Was its module unloaded?")
        self._styled.put(frame.rgb, due_ns)

    def write_raw(self, frame: RawFrame) -> None:
        """Take a picture of the source, of any size. It is shown while no styled ones come. Never waits."""
        if self._raw is not None:
            self._raw.put(frame.rgb)

    def close(self, complete: bool) -> None:
        """End the thread and close the camera. A second call does nothing."""
        self._playback.close()
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._show()
        except OSError as error:
            self._error = error
        finally:
            self._output.close()

    def _show(self) -> None:
        period_ns = round(10**9 / self._fps)
        ticker = Ticker(self._fps, time.monotonic_ns())
        styled: TakenPicture | None = None
        styled_ns = raw_ns = None
        while True:
            left_ns = ticker.next(time.monotonic_ns()) - time.monotonic_ns()
            if self._closing.wait(max(0.0, left_ns / 1e9)):
                return
            now = time.monotonic_ns()
            fresh = self._styled.take()
            if fresh is not None:
                styled, styled_ns = fresh, now
            if self._raw is not None and self._raw.take():
                raw_ns = now
            shown = choose(self._on_fault, period_ns, now, styled_ns, raw_ns)
            if shown == "raw":
                assert self._raw is not None
                self._output.send(self._raw.fitted())
                self.bridged += 1
            else:
                self._output.send(self._dark if styled is None else styled.rgb)
                self.repeated += fresh is None
            self.sent += 1
            self.skipped = ticker.skipped


def choose(on_fault: OnFault, period_ns: int, now_ns: int, styled_ns: int | None, raw_ns: int | None) -> Shown:
    """Choose what to show, by the times when the last styled and the last raw picture came (None: never).

    A fault is a second, or three periods if they are longer, without a styled picture. During a fault, `hold` shows the
    last styled picture. `passthrough` shows the source, as long as that still gives pictures.
    """
    patience_ns = max(_LEAST_FAULT_NS, _FAULT_FRAMES * period_ns)
    styled = styled_ns is not None and now_ns - styled_ns <= patience_ns
    raw = raw_ns is not None and now_ns - raw_ns <= patience_ns
    if not styled and raw and on_fault == "passthrough":
        return "raw"
    return "styled" if styled else "held"
