"""A graph fed by the caller: pictures pushed in, styled pictures returned."""

import logging
import queue
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import check_live, merge
from warpfuse.graph.runtime.context import prepare
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.borrowed import kept
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo

Picture = npt.NDArray[np.uint8]

_LOG = logging.getLogger("warpfuse")

_ENDS = {"source": "push()", "sinks": ("push()",)}


class Pipeline:
    """The graph as an object. A context manager; one thread pushes.

        with Pipeline(prompt="ink", size=(512, 288)) as pipeline:
            styled = pipeline.push(picture)

    The keywords are the keys of a graph file but for source and sinks. Without `size` the first picture's shape and the
    bundle's own size decide. Raises BadInput.
    """

    def __init__(self, **keys: Any) -> None:
        refused = {"source", "sinks", "frames"} & keys.keys()
        if refused:
            raise ConfigError(f"{', '.join(sorted(refused))}: a Pipeline is fed by push(); use warpfuse.run for files")
        self._keys = keys
        self._config = validate(keys)
        self._run: ThreadRun | None = None
        self._in: queue.Queue[Picture | None] = queue.Queue()
        self._out: queue.Queue[RawFrame | None] = queue.Queue()
        self._filling = 0

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def push(self, rgb: Picture) -> Picture | None:
        """Style one picture, uint8 [h, w, 3] RGB; returns it at the pipeline's size, uint8 [h', w', 3].

        As a stream batch (`stages.predict.stream`) of K calls it returns the picture of K - 1 pushes before, and None
        for the first K - 1; `drain` has the last ones. Else never None.
        Raises BadInput for another type or shape, StreamLost or StageFailed when the graph broke off.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ConfigError(f"push: expected uint8 [h, w, 3], got {rgb.dtype} {list(rgb.shape)}")
        run = self._run or self._open((rgb.shape[1], rgb.shape[0]))
        self._in.put(np.array(rgb, order="C"))  # a copy: the caller may draw into theirs while the stages read
        if self._filling and run.alive:
            self._filling -= 1
            return None
        frame = self._out.get()
        if frame is None:
            self._run = None
            self._in.put(None)  # the source may be waiting for a picture, and `wait` for the source
            try:
                run.wait()
            finally:
                run.close()
            raise WarpfuseError("the pipeline has ended")
        return frame.rgb

    def drain(self) -> list[Picture]:
        """End the graph, and the pictures that were still inside, in order; [] without a stream batch."""
        if self._run is None:
            return []
        self._in.put(None)
        rest = [frame.rgb for frame in iter(self._out.get, None)]
        self.close()
        return rest

    def update(self, **keys: Any) -> None:
        """Change prompt, loras, strength, steps or fusion from the next push on. Raises BadInput, changing nothing."""
        if self._run is not None:
            self._run.change(keys)
        merged = merge(self._keys, keys)
        config = validate(merged)
        check_live(config, self._config)
        self._keys, self._config = merged, config

    def close(self) -> Stats | None:
        """End the graph; its figures, or None if nothing was pushed."""
        run, self._run = self._run, None
        if run is None:
            return None
        self._in.put(None)
        try:
            return run.wait()
        finally:
            run.close()
            run.context.close()

    def _open(self, shape: tuple[int, int]) -> ThreadRun:
        context = prepare(self._config, shape, say=_LOG.info, warn=_LOG.warning)
        config = self._config.model_copy(update=_ENDS)
        endpoints = Endpoints(lambda: _PushSource(self._in, shape), lambda _: _ReturnSink(self._out), rewind=False)
        # One failure ends it: every push waits for its picture.
        run = ThreadRun(replace(context, config=config), endpoints, keys=self._keys, temporal=True, failures=1)
        try:
            run.open()
        except BaseException:
            run.close()
            context.close()
            raise
        run.start()
        self._run = run
        self._filling = context.calls - 1 if config.stages.predict.stream else 0
        return run


class _PushSource:
    """Frames from a queue; None in it is the end."""

    warning = None

    def __init__(self, pictures: "queue.Queue[Picture | None]", shape: tuple[int, int]) -> None:
        self.info = VideoInfo(shape[0], shape[1], Fraction(25), Fraction(1, 1_000_000_000), live=True)
        self._pictures = pictures
        self._seq = 0

    def read(self) -> RawFrame | None:
        picture = self._pictures.get()
        if picture is None:
            return None
        frame = RawFrame(Stamp(self._seq, self._seq * 40_000_000), picture)
        self._seq += 1
        return frame

    def close(self) -> None:
        """Nothing is held."""


class _ReturnSink:
    """Frames into a queue; None in it says that no more will come."""

    def __init__(self, frames: "queue.Queue[RawFrame | None]") -> None:
        self.notes: list[str] = []
        self._frames = frames

    def write(self, frame: RawFrame) -> None:
        self._frames.put(kept(frame))

    def close(self, complete: bool) -> None:
        self._frames.put(None)
