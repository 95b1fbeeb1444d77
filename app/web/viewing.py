"""The page as a viewer of a run: a sink and taps for each stream; those of the selected stream are shown."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from warpfuse.graph.runtime.endpoints import Viewer
from warpfuse.stages.frame import RawFrame, SoundPiece
from warpfuse.stages.interim import Interim
from warpfuse.stages.stage import VideoInfo
from warpfuse.web.figures import Moment, Recent
from warpfuse.web.pictures import Pictures
from warpfuse.web.recorder import Recorder


class ViewerSink:
    """Shows the frames of a stream while it is the one looked at, and hands them to a recorder while there is one.

    interim  what the newest frame had beside its settings: the cue among others
    """

    def __init__(self, shown: Callable[[RawFrame], None], info: VideoInfo, size: tuple[int, int]) -> None:
        self.notes: list[str] = []
        self.frames = 0
        self.recorder: Recorder | None = None
        self.interim: Interim | None = None
        self._recent = Recent()
        self._shown = shown
        self._info, self._size = info, size

    def record(self, file: str) -> None:
        """Write what is shown from now on to a file, too. Raises SinkError."""
        self.recorder = Recorder(file, self._info, self._size, lossless=not self._info.live)

    def moment(self) -> Moment:
        """The figures of the last two seconds."""
        return self._recent.at(time.monotonic_ns())

    def write(self, frame: RawFrame) -> None:
        """Show a frame, and record it if a recorder is attached. The frame is kept by reference."""
        now = time.monotonic_ns()
        self.frames += 1
        self.interim = frame.stamp.interim
        self._recent.add(now, now - frame.stamp.arrived_ns)
        frame = _opaque(frame)
        self._shown(frame)
        recorder = self.recorder
        if recorder is not None:
            recorder.write(frame)

    def hear(self, piece: SoundPiece) -> None:
        """Take a piece of a live source's sound, for the recorder."""
        if (recorder := self.recorder) is not None:
            recorder.hear(piece)

    def close(self, complete: bool) -> None:
        """Nothing to close: recorders are closed by the session."""


class Looking:
    """What is looked at of a run: one stream at a time, chosen by `selected`.

    sinks  of the streams, by name
    """

    def __init__(self, pictures: Pictures, selected: Callable[[], str]) -> None:
        self.sinks: dict[str, ViewerSink] = {}
        self._pictures, self._selected = pictures, selected

    @property
    def viewer(self) -> Viewer:
        """The viewer to open a run with."""
        return Viewer(self._sink, self._taps)

    def _sink(self, stream: str, info: VideoInfo, size: tuple[int, int]) -> ViewerSink:
        self.sinks[stream] = sink = ViewerSink(self._if_selected(stream, self._pictures.show), info, size)
        return sink

    def _taps(self, stream: str) -> Mapping[str, Callable[..., None]]:
        taps: dict[str, Callable[..., None]] = {
            "source": self._pictures.saw_source,
            "flow": self._pictures.saw_motion,
            "control": self._pictures.saw_map,
            "mask": self._pictures.saw_mask,
        }
        return {kind: self._if_selected(stream, tap) for kind, tap in taps.items()}

    def _if_selected(self, stream: str, see: Callable[..., None]) -> Callable[..., None]:
        def seen(*given: Any) -> None:
            if self._selected() in ("", stream):
                see(*given)

        return seen


def _opaque(frame: RawFrame) -> RawFrame:
    """The frame over black, without its alpha channel."""
    if frame.rgb.shape[2] == 3:
        return frame
    rgb, alpha = frame.rgb[..., :3].astype(np.uint16), frame.rgb[..., 3:].astype(np.uint16)
    return replace(frame, rgb=((rgb * alpha + 127) // 255).astype(np.uint8))
