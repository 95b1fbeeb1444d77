"""Recording: a file sink that begins and ends while the run continues."""

import queue
import threading
from collections import deque
from dataclasses import replace

from warpfuse.engine.errors import WarpfuseError
from warpfuse.stages.frame import RawFrame, SoundPiece
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.stage import Hearing, VideoInfo

_WAITING = 8  # frames between the run and the encoder
_PIECES = 1000  # of sound, one a picture


class Recorder:
    """Writes frames, and the sound of a live source, to a file in a thread of its own. `write` and `hear` belong to one
    thread; `close` may come from another.

    lossless  a full queue holds up the writer; else the frame is dropped and counted, as a live run must not wait
    dropped   frames the encoder had no time for
    error     what ended it early, if anything did; frames written then go nowhere
    """

    def __init__(self, file: str, info: VideoInfo, size: tuple[int, int], *, lossless: bool) -> None:
        """Raises SinkError when the file cannot be written."""
        check(file)
        self.file, self.frames, self.dropped = file, 0, 0
        self.error: WarpfuseError | None = None
        self._sink = open_sink(file, info, size)
        self._lossless = lossless
        self._first_pts_ns: int | None = None
        self._writing = threading.Lock()
        self._closed = False
        self._frames: queue.Queue[RawFrame | None] = queue.Queue(_WAITING)
        self._pieces: deque[SoundPiece] = deque(maxlen=_PIECES)
        self._thread = threading.Thread(target=self._work, name="wf:recorder", daemon=True)
        self._thread.start()

    def write(self, frame: RawFrame) -> None:
        """Take a frame. The time of the file begins with the first one. Frames after `close` are ignored."""
        if self._first_pts_ns is None:
            self._first_pts_ns = frame.stamp.pts_ns
        frame = RawFrame(replace(frame.stamp, pts_ns=frame.stamp.pts_ns - self._first_pts_ns), frame.rgb)
        with self._writing:
            if self._closed:
                return
            try:
                self._frames.put(frame, block=self._lossless)
            except queue.Full:
                self.dropped += 1

    def hear(self, piece: SoundPiece) -> None:
        """Take a piece of sound. It is written with the next frame."""
        self._pieces.append(piece)

    def close(self) -> None:
        """Finish the file. It has its final name when this returns. A second call does nothing."""
        with self._writing:
            if not self._closed:
                self._closed = True
                self._frames.put(None)
        self._thread.join()

    def _work(self) -> None:
        frame = self._frames.get()
        try:
            while frame is not None:
                self._pass_sound()
                self._sink.write(frame)
                self.frames += 1
                frame = self._frames.get()
            self._sink.close(complete=True)
        except WarpfuseError as error:
            self.error = error
            self._sink.close(complete=False)
            while frame is not None:  # whoever writes must not wait for ever
                frame = self._frames.get()

    def _pass_sound(self) -> None:
        """Hand over the sound heard so far, on the clock of the file."""
        while self._pieces:
            piece = self._pieces.popleft()
            if isinstance(self._sink, Hearing):
                self._sink.hear(piece.earlier(self._first_pts_ns or 0))
