"""A run of several streams in this process: each is a `ThreadRun`, and all share their networks.

Streams may join and leave while the others go on. A stream that fails does not end the others.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any

from msgspec.structs import replace as replace_struct

from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.redact import redact
from warpfuse.graph.control.messages import Applied, StreamCounts
from warpfuse.graph.control.run import Progress, Run
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.metrics.meters import FrameCounts, Stats
from warpfuse.graph.metrics.report import Setup, stats_of
from warpfuse.graph.metrics.trace import Span, Track
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.streams import Streams, free_stream_name, of_stream, under_name
from warpfuse.graph.runtime.context import RunNetworks, Say, open_networks, silent
from warpfuse.graph.runtime.endpoints import (
    Endpoints,
    Viewer,
    check_passthrough,
    endpoints_of,
    find_source,
    frames_expected,
    viewed,
)
from warpfuse.graph.runtime.engines import SharedEngines
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.errors import StreamLost
from warpfuse.stages.sinks import check
from warpfuse.stages.sources.live import LiveSource
from warpfuse.stages.sources.schemes import path_of, scheme_of
from warpfuse.stages.stage import VideoInfo

_TICK_S = 0.1
_LEFT = 256  # streams that have ended whose counts are still kept

Beside = Callable[[str, Run], contextlib.AbstractContextManager[object]]
"""Makes what is open for as long as a stream is, from the stream's name and run."""


@dataclass
class _Stream:
    """A stream under way. frames: written so far; error: why it failed, with the stream's name in its text."""

    name: str
    config: GraphConfig
    run: ThreadRun
    expected: int | None
    undo: contextlib.ExitStack
    frames: int = 0
    error: WarpfuseError | None = None
    thread: threading.Thread | None = None
    removed: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def alive(self) -> bool:
        return self.thread is None or self.thread.is_alive()


class StreamsRun:
    """A `Run` over several others. `put` or `add` streams, then use it as any run.

    The run ends when its last stream ends. If its last stream was removed, it waits for the next one. A stream host
    (`Streams.host`) runs until it is stopped, even if streams fail.

    given   the keys of an added stream are laid over these; None: no stream can be added
    trace   record the calls of every stage
    beside  opened with each stream, and closed with it
    viewer  sees every stream
    """

    def __init__(
        self,
        networks: RunNetworks,
        *,
        given: Streams | None = None,
        say: Say = silent,
        stop: threading.Event | None = None,
        trace: bool = False,
        beside: Beside = lambda name, run: contextlib.nullcontext(),
        viewer: Viewer | None = None,
    ) -> None:
        self._networks, self._given, self._say, self._trace = networks, given, say, trace
        self._host = given is not None and given.host
        self._beside, self._viewer = beside, viewer
        self._stop = stop or threading.Event()
        self._started = self._over = False
        self._waits_for_next = False
        self._opening = threading.Lock()  # one stream is opened at a time
        self._changing = threading.RLock()
        self._news = threading.Event()
        self._streams: dict[str, _Stream] = {}
        self._gone: Stats | None = None
        self._gone_frames, self._gone_expected = 0, 0
        self._left: dict[str, StreamCounts] = {}
        self._spans: dict[str, list[Span]] = {}
        self._failed: WarpfuseError | None = None

    @property
    def streams(self) -> Mapping[str, Run]:
        """The streams under way; see `Run`."""
        return {name: stream.run for name, stream in list(self._streams.items())}

    def put(
        self,
        name: str,
        config: GraphConfig,
        info: VideoInfo,
        endpoints: Callable[[tuple[int, int]], Endpoints],
        begun_ns: int | None = None,
    ) -> None:
        """Open a stream over the source that `info` describes. It starts with the run; at once if the run has started.

        endpoints  makes the stream's endpoints for a (width, height)
        begun_ns   monotonic clock when it began to be opened; None: now
        Raises BadInput; then nothing is left open.
        """

        def say(line: str) -> None:
            self._say(f"{name}: {line}")

        begun_ns = begun_ns or time.monotonic_ns()
        with self._opening, of_stream(name), contextlib.ExitStack() as undo:
            if name in self._streams:
                raise ConfigError("a stream of that name is under way; give another name")
            keys, asked = None, config
            size, note = self._networks.size_of(config, (info.width, info.height))
            if note:
                say(note)
            ends = endpoints(size)
            if self._viewer is not None:
                keys = config.model_dump(mode="json")
                config, ends = viewed(self._viewer, name, config, ends, info, config.output or size)
            shape = info.width, info.height
            context = self._networks.context(config, size, say, track=Track() if self._trace else None, shape=shape)
            context = replace(context, begun_ns=begun_ns)
            undo.callback(context.close)
            temporal = True if self._viewer is not None else None
            expected = frames_expected(info, config)
            run = ThreadRun(context, ends, keys=keys, temporal=temporal, expected=expected)
            undo.callback(run.close)
            run.open()
            undo.enter_context(self._beside(name, run))
            with self._changing:
                if self._over:
                    raise ConfigError("the run has ended")
                self._streams[name] = stream = _Stream(name, asked, run, expected, undo.pop_all())
                if self._started:
                    self._start(stream)

    def start(self) -> None:
        """As `Run` says."""
        with self._changing:
            self._started = True
            for stream in self._streams.values():
                self._start(stream)

    def add(self, name: str, keys: Mapping[str, Any]) -> str:
        """Add a stream with these keys over the common ones. Returns its name. name: "" names it after its source.

        Raises BadInput or StreamLost if it cannot start. Then nothing of it is left open, and the others go on.
        """
        if self._given is None:
            raise ConfigError("this run takes no more streams")
        begun_ns = time.monotonic_ns()
        name = name or free_stream_name(str(keys.get("source", "")), self._streams)
        config = self._given.joined(name, keys)
        check_ends({name: config}, {own.name: own.config for own in list(self._streams.values())})
        with of_stream(name):
            info, connected = find_source(config.source, self._stop, config.size)
        try:
            with of_stream(name):
                check_passthrough(config, info)
            self.put(name, config, info, partial(endpoints_of, config, info, connected=connected), begun_ns)
        except BaseException:
            if connected is not None:
                connected.close()
            raise
        self._say(f"stream {name} has joined")
        return name

    def remove(self, name: str) -> None:
        """Remove a stream. Returns when the frames it read are finished and its files complete. Raises ConfigError."""
        stream = self._streams.get(name)
        if stream is None:
            raise ConfigError(f"there is no stream {name!r}; under way: {', '.join(self._streams) or 'none'}")
        stream.removed = True
        stream.run.stop()
        self._news.set()
        stream.closed.wait()
        self._say(f"stream {name} has left")

    def wait(self, progress: Progress | None = None) -> Stats:
        """Wait until the last stream has ended; see `Run`. Raises the error of the first stream that failed."""
        while True:
            self._news.wait(_TICK_S)
            self._news.clear()
            if self._stop.is_set():
                for stream in list(self._streams.values()):
                    stream.run.stop()
            for stream in [stream for stream in list(self._streams.values()) if not stream.alive]:
                self._retire(stream)
            if progress is not None:
                progress(*self._progress())
            with self._changing:
                if not self._streams and (self._stop.is_set() or not (self._waits_for_next or self._host)):
                    self._over = True
                    break
        stats = self.stats()
        if self._failed is not None and not self._host:
            if isinstance(self._failed, StreamLost | StageFailed):
                self._failed.stats = stats
            raise self._failed
        return stats

    def close(self) -> None:
        """As `Run` says. It does not close the networks."""
        with self._changing:
            self._over = True
            for stream in list(self._streams.values()):
                stream.run.stop()
                if stream.thread is not None:
                    stream.thread.join()
                self._retire(stream)

    @property
    def paused(self) -> bool:
        """Whether every stream is paused."""
        return bool(self._streams) and all(run.paused for run in self.streams.values())

    def settings(self) -> dict[str, Any]:
        """The settings of every stream."""
        return {"streams": {name: run.settings() for name, run in self.streams.items()}}

    def change(self, keys: Mapping[str, Any]) -> Applied:
        """Change the settings of every stream, or of none. Returns the highest version and frame number of all."""
        with self._changing:
            runs = [stream.run for stream in self._streams.values()]
            for run in runs:
                run.check(keys)
            applied = [run.change(keys) for run in runs]
        return Applied(max((a.version for a in applied), default=0), max((a.seq for a in applied), default=0))

    def stats(self) -> Stats:
        """Figures of all streams. Counts are added; stages and links are named `NAME.stage`.

        The figures of each stream are in `streams`.
        """
        with self._changing:
            told = [stream.run.stats().under(name) for name, stream in self._streams.items()]
            if self._gone is not None:
                told.insert(0, self._gone)
            if not told:
                told.append(self._blank())
        engines = self._networks.engines
        networks = engines.calls() if isinstance(engines, SharedEngines) else {}
        return replace(sum(told[1:], told[0]), networks=networks).stopped(self._stop.is_set())

    def counts(self) -> dict[str, StreamCounts]:
        """As `ManyStreams` says."""
        with self._changing:
            return {**self._left, **{name: _counts(stream) for name, stream in self._streams.items()}}

    def _blank(self) -> Stats:
        """The figures of a run without a stream."""
        config = validate(dict(self._given.common)) if self._given is not None else GraphConfig()
        about, engines = self._networks.bundle, self._networks.engines
        size = config.size or (0, 0)
        opened = engines.in_use, about.precision, engines.device, about.about.name
        return stats_of([], Setup(*opened, size, config.output or size, config.steps))

    def workers(self) -> dict[str, list[str]]:
        """The stages of each stream, as `NAME.stage`."""
        own = {
            name: [stage for stages in run.workers().values() for stage in stages] for name, run in self.streams.items()
        }
        return {name: [f"{name}.{stage}" for stage in stages] for name, stages in own.items()}

    def spans(self) -> dict[str, list[Span]]:
        """The calls of the stages of each stream."""
        return {**self._spans, **{name: _spans(stream.run) for name, stream in self._streams.items()}}

    def pause(self) -> None:
        """Pause every stream."""
        for run in self.streams.values():
            run.pause()

    def resume(self) -> None:
        """End the pause of every stream."""
        for run in self.streams.values():
            run.resume()

    def snapshot(self) -> bytes:
        """Raises ConfigError: there is no one picture of several streams."""
        raise ConfigError(f"the run has several streams; ask one of them by its name: {', '.join(self._streams)}")

    def stop(self) -> None:
        """As `Run` says."""
        self._stop.set()
        self._news.set()

    def _start(self, stream: _Stream) -> None:
        stream.run.start()
        thread = threading.Thread(target=self._live, args=(stream,), name=f"wf:stream {stream.name}", daemon=True)
        thread.start()
        stream.thread = thread  # one that has not begun looks like one that has ended

    def _live(self, stream: _Stream) -> None:
        def progress(frames: int, expected: int | None) -> None:
            stream.frames = frames

        try:
            stream.run.wait(progress)
        except Exception as error:  # noqa: BLE001  kept, and raised when the other streams are done
            stream.error = under_name(stream.name, error)
            self._say(f"{stream.name}: has ended, the others go on: {error}")
        self._news.set()

    def _retire(self, stream: _Stream) -> None:
        """Close a stream that has ended, and keep its figures."""
        with self._changing:
            if self._streams.get(stream.name) is not stream:
                return
            stats = stream.run.stats()
            stream.undo.close()
            own = stats.sums() if self._host else stats.under(stream.name)
            self._gone = own if self._gone is None else self._gone + own
            self._gone_frames += stream.frames
            self._gone_expected += stream.expected or stream.frames
            self._left.pop(stream.name, None)
            self._left[stream.name] = replace_struct(_counts(stream, stats.frames), over=True)
            while len(self._left) > _LEFT:
                del self._left[next(iter(self._left))]
            if self._trace:
                self._spans[stream.name] = _spans(stream.run)
            self._failed = self._failed or stream.error
            del self._streams[stream.name]
            self._waits_for_next = stream.removed
        stream.closed.set()

    def _progress(self) -> tuple[int, int | None]:
        streams = list(self._streams.values())
        known = [stream.expected for stream in streams]
        total = None if None in known else self._gone_expected + sum(n for n in known if n is not None)
        return self._gone_frames + sum(stream.frames for stream in streams), total


def open_streams(
    streams: Streams,
    undo: contextlib.ExitStack,
    *,
    say: Say = silent,
    stop: threading.Event,
    trace: bool = False,
    beside: Beside = lambda name, run: contextlib.nullcontext(),
    viewer: Viewer | None = None,
) -> StreamsRun:
    """Open a run of these streams and all their stages. `undo` closes it. Raises BadInput, StreamLost."""
    begun_ns = time.monotonic_ns()
    check_ends(streams.configs)
    found: dict[str, tuple[VideoInfo, LiveSource | None]] = {}
    for name, config in streams.configs.items():
        with of_stream(name):
            found[name] = find_source(config.source, stop, config.size)
            connected = found[name][1]
            if connected is not None:
                undo.callback(connected.close)
    networks = open_networks(streams.configs, say, streams)
    undo.callback(networks.close)
    run = StreamsRun(networks, given=streams, say=say, stop=stop, trace=trace, beside=beside, viewer=viewer)
    undo.callback(run.close)
    for name, config in streams.configs.items():
        info, connected = found[name]
        with of_stream(name):
            check_passthrough(config, info)
        run.put(name, config, info, partial(endpoints_of, config, info, connected=connected), begun_ns)
    return run


def check_ends(configs: Mapping[str, GraphConfig], under_way: Mapping[str, GraphConfig] | None = None) -> None:
    """Raise BadInput for a sink that cannot be opened, that a stream reads, or that two streams write.

    under_way  streams whose sinks are already open
    """
    everybody = {**(under_way or {}), **configs}
    for config in configs.values():
        for sink in config.sinks:
            for other in everybody.values():
                check(sink, source=other.source)
        open_sinks = [sink for other in (under_way or {}).values() for sink in other.sinks]
        if read := next((sink for sink in open_sinks if _end(sink) == _end(config.source)), None):
            raise ConfigError(f"{read} is a sink of this run: no stream of it can read it")
    for a, b in combinations(everybody, 2):
        twice = {_end(s) for s in everybody[a].sinks} & {_end(s) for s in everybody[b].sinks} - {"null:"}
        if twice:
            raise ConfigError(f"{min(twice)} is a sink of {a} and of {b}: each stream needs its own")


def _end(sink: str) -> str:
    """The sink in one form, so that two names of one file compare equal."""
    return str(path_of(sink).resolve()) if scheme_of(sink) == "file" else sink


def _counts(stream: _Stream, frames: FrameCounts | None = None) -> StreamCounts:
    """The counts of a stream for the control interface. frames: its frame counts, if already known."""
    own, error = frames or stream.run.counts(), stream.error
    told = own.into, own.out, own.repeated, own.dropped, own.under_way, stream.run.context.size
    return StreamCounts(*told, over=not stream.alive, error=None if error is None else redact(str(error)))


def _spans(run: ThreadRun) -> list[Span]:
    return run.context.track.spans() if run.context.track is not None else []
