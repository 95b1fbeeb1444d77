"""`Pipeline`: a graph that the caller feeds. It takes pictures and returns styled pictures."""

import contextlib
import inspect
import logging
import queue
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack, get_type_hints

import numpy as np
import numpy.typing as npt

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BadInput, WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.crossfade import timed
from warpfuse.graph.plan.live_settings import check_live
from warpfuse.graph.plan.pipeline_keys import REFUSED, PipelineKeys
from warpfuse.graph.plan.raw_keys import merge
from warpfuse.graph.plan.sizing import framing_of, size_of
from warpfuse.graph.runtime.context import prepare
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.borrowed import owned
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sources import connects, open_source, probe
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.stage import Source, VideoInfo

Picture = npt.NDArray[np.uint8]

_Timed = tuple[Picture, int]
"""A picture and its presentation time in nanoseconds."""

_LOG = logging.getLogger("warpfuse")

_ENDS = {"source": "push()", "sinks": ("push()",)}


class Pipeline:
    """The graph as an object. A context manager; one thread pushes.

        with Pipeline(prompt="ink", size=(512, 288)) as pipeline:
            styled = pipeline.push(picture)

    The keywords are the keys of a graph file, without source and sinks (`PipelineKeys`). Without `size` the first
    picture's shape and the bundle's sizes decide. A pipeline that is garbage-collected without `close` ends by itself.

    Raises BadInput.
    """

    def __init__(self, **keys: Unpack[PipelineKeys]) -> None:
        refused = {*REFUSED} & keys.keys()
        if refused:
            raise ConfigError(f"{', '.join(sorted(refused))}: a Pipeline is fed by push(); use warpfuse.run for files")
        self._keys: dict[str, Any] = {**keys}
        self._config = validate(self._keys)
        self._run: ThreadRun | None = None
        self._in: queue.SimpleQueue[_Timed | None] = queue.SimpleQueue()  # its `put` may be called by a finalizer
        self._out: queue.Queue[RawFrame | None] = queue.Queue()
        self._filling = 0
        self._in_use = threading.Lock()
        self._end: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def push(self, rgb: Picture, at_s: float | None = None) -> Picture | None:
        """Style one picture, uint8 [h, w, 3] RGB; returns it at the pipeline's size, uint8 [h', w', 3].

        at_s  when the picture is shown, in seconds from any origin; crossfades go by it. None: now

        With a stream batch (`stages.predict.stream`) of K calls, it returns the picture of K - 1 pushes before, and
        None for the first K - 1 pushes; `drain` returns the last ones. Without a stream batch it never returns None.

        Raises BadInput for another type or shape, or while another thread uses this pipeline; StreamLost or StageFailed
        when the graph has failed.
        """
        _check_picture(rgb)
        with self._one_thread("push"):
            return self._push(rgb, time.monotonic() if at_s is None else at_s)

    def frames(self, source: str | Path) -> Iterator[Picture]:
        """Yield every picture of a source, styled, in order: uint8 [h', w', 3].

        source  as in a graph file: a path, `camera:0`, `rtsp://...`; it is cropped and scaled to the pipeline's size

        A live source is read only as fast as the caller takes the pictures. With a stream batch, the graph ends with
        the source, so that its last pictures come out.
        Raises BadInput, StreamLost, StageFailed.
        """
        if not isinstance(source, str | Path):
            raise BadInput(f"source: expected a path or an address, got {type(source).__name__}. Hand pictures to push")
        with contextlib.closing(self._opened(str(source))) as opened:
            while (frame := opened.read()) is not None:
                if (styled := self.push(frame.rgb, frame.stamp.pts_ns / 1e9)) is not None:
                    yield styled
        if self._config.stages.predict.stream:
            yield from self.drain()

    def _opened(self, url: str) -> Source:
        """The opened source, which gives pictures that need no more scaling."""
        if connects(url):
            live = open_source(url)
            assert isinstance(live, LiveSource)
            live.fit(self._asked_for(live.info), None)
            return live
        return open_source(url, size=self._asked_for(probe(url)))

    def _asked_for(self, info: VideoInfo) -> tuple[int, int]:
        """The size of a source's pictures that are pushed."""
        shape = info.width, info.height
        if self._run is not None:
            size = self._run.context.size
        else:
            about = load_bundle(self._config.bundle).about
            size = size_of(self._config, shape, about.sizes, about.size)[0]
        return framing_of(self._config, shape, size).asked

    @contextlib.contextmanager
    def _one_thread(self, method: str) -> Iterator[None]:
        if not self._in_use.acquire(blocking=False):
            raise ConfigError(
                f"{method}: another thread is using this Pipeline, expected one at a time."
                " Guard it with a lock, or give each thread a Pipeline of its own"
            )
        try:
            yield
        finally:
            self._in_use.release()

    def _push(self, rgb: Picture, at_s: float) -> Picture | None:
        run = self._run or self._open((rgb.shape[1], rgb.shape[0]))
        # a copy: the caller may draw into theirs while the stages read
        self._in.put((np.array(rgb, order="C"), round(at_s * 1e9)))
        if self._filling and run.alive:
            self._filling -= 1
            return None
        frame = self._out.get()
        if frame is None:
            self._run = None
            if self._end is not None:
                self._end.detach()
            self._in.put(None)  # the source may be waiting for a picture, and `wait` for the source
            try:
                run.wait()
            finally:
                run.close()
            raise WarpfuseError("the pipeline has ended")
        return frame.rgb

    def drain(self) -> list[Picture]:
        """End the graph. Returns the pictures that were still in it, in order; [] without a stream batch."""
        with self._one_thread("drain"):
            if self._run is None:
                return []
            self._in.put(None)
            rest = [frame.rgb for frame in iter(self._out.get, None)]
            self._close()
            return rest

    def update(self, *, over_s: float = 0, **keys: Unpack[PipelineKeys]) -> None:
        """Change prompt, loras, strength, steps or fusion from the next push on.

        look    name of one of `looks`, whose keys are all set: pipeline.update(look="storm")
        over_s  0 to 3600: seconds in which fractional numbers and the prompt change over from the present value

        Raises BadInput for unusable keys or values; then nothing has changed.
        """
        self._update({**keys, "over_s": over_s})

    def _update(self, keys: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.change(keys)
        merged = merge(self._keys, timed(keys).keys)
        config = validate(merged)
        check_live(config, self._config)
        self._keys, self._config = merged, config

    def close(self) -> Stats | None:
        """End the graph. Returns its figures; None if nothing was pushed.

        Raises BadInput while another thread pushes.
        """
        with self._one_thread("close"):
            return self._close()

    def _close(self) -> Stats | None:
        run, self._run = self._run, None
        if run is None:
            return None
        if self._end is not None:
            self._end.detach()
        self._in.put(None)
        return _ended(run)

    def _open(self, shape: tuple[int, int]) -> ThreadRun:
        context = prepare(self._config, shape, say=_LOG.info, warn=_LOG.warning)
        config = self._config.model_copy(update=_ENDS)
        pictures, styled = self._in, self._out  # a reference to self in the threads would keep the pipeline alive
        endpoints = Endpoints(lambda: _PushSource(pictures, shape), lambda _: _ReturnSink(styled), rewind=False)
        # failures=1: a frame that a stage fails on ends the run, because `push` waits for every picture.
        run = ThreadRun(replace(context, config=config), endpoints, keys=self._keys, temporal=True, failures=1)
        try:
            run.open()
        except BaseException:
            run.close()
            context.close()
            raise
        run.start()
        self._run = run
        self._end = weakref.finalize(self, _let_go, pictures, run)
        self._end.atexit = False  # the threads are daemons
        self._filling = context.calls - 1 if config.stages.predict.stream else 0
        return run


def _shown_signature() -> inspect.Signature:
    """The signature with each keyword by name. help() and shells do not expand `Unpack`."""
    hints = get_type_hints(PipelineKeys)
    return inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=hints[name]) for name in hints]
    )


Pipeline.__signature__ = _shown_signature()  # type: ignore[attr-defined]


def _check_picture(rgb: object) -> None:
    expected = "push: expected uint8 [h, w, 3]"
    if not isinstance(rgb, np.ndarray):
        kind = type(rgb)
        remedy = "numpy.asarray(image.convert('RGB'))" if hasattr(rgb, "convert") else "numpy.asarray(picture)"
        raise ConfigError(f"{expected} of numpy, got {kind.__module__}.{kind.__qualname__}. Try push({remedy})")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ConfigError(f"{expected}, got {rgb.dtype} {list(rgb.shape)}")


def _ended(run: ThreadRun) -> Stats:
    """Wait for a graph whose source is ending, close it, and return its figures."""
    try:
        return run.wait()
    finally:
        run.close()
        run.context.close()


def _let_go(pictures: "queue.SimpleQueue[_Timed | None]", run: ThreadRun) -> None:
    """End the graph of a garbage-collected Pipeline, in a new thread.

    The garbage collector may run in one of the graph's own threads, which must not wait for itself.
    """
    pictures.put(None)
    threading.Thread(target=_end_quietly, args=(run,), name="wf:let-go", daemon=True).start()


def _end_quietly(run: ThreadRun) -> None:
    with contextlib.suppress(WarpfuseError):  # no caller is left to handle it
        _ended(run)


class _PushSource:
    """A source of the pictures in a queue. None in the queue ends the stream."""

    warning = None

    def __init__(self, pictures: "queue.SimpleQueue[_Timed | None]", shape: tuple[int, int]) -> None:
        self.info = VideoInfo(shape[0], shape[1], Fraction(25), Fraction(1, 1_000_000_000), live=True)
        self._pictures = pictures
        self._seq = 0

    def read(self) -> RawFrame | None:
        taken = self._pictures.get()
        if taken is None:
            return None
        picture, pts_ns = taken
        frame = RawFrame(Stamp(self._seq, pts_ns), picture)
        self._seq += 1
        return frame

    def close(self) -> None:
        """Nothing to release: the queue belongs to the pipeline."""


class _ReturnSink:
    """A sink that puts frames into a queue, and None after the last."""

    def __init__(self, frames: "queue.Queue[RawFrame | None]") -> None:
        self.notes: list[str] = []
        self._frames = frames

    def write(self, frame: RawFrame) -> None:
        self._frames.put(owned(frame))

    def close(self, complete: bool) -> None:
        self._frames.put(None)
