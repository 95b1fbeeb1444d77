"""A trial of a few seconds: does this machine keep up with a source and a bundle, and if not, what to change?

The run is an ordinary one in one process, without the sinks of the configuration. In their place the page shows its
pictures, with a number burned in behind the graph, and a viewer reads it there. So the delay is that from a frame's
arrival at the source to its picture decoded by who watches. A source that is no live one is read in real time.
"""

import contextlib
import http.client
import math
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from warpfuse.doctor import burnt_code
from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BadInput
from warpfuse.engine.redact import redact
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.run import open_run
from warpfuse.graph.runtime.context import Say, silent
from warpfuse.graph.runtime.endpoints import Viewer
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.errors import Stopped
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks.page import PageSink
from warpfuse.stages.stage import VideoInfo

SECONDS = 5.0
_WARM_UP_S = 1.0  # behind the first picture, not counted: networks allocate
_ENOUGH = 0.95  # of the rate of the source, and 1 - the share that may be dropped
_LARGEST_LACK = 4.0  # advice asks for no more at once
_WIDTH_PX = 320  # of a picture in which the number survives a JPEG


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial measured; of rate, drops and delay the warm-up is left out.

    wanted_fps       frames a second that the source gives
    reached_fps      frames a second that were shown
    dropped_share    of the frames that came in, 0..1
    delay_ms         p50 and p95 from arrival at the source until a viewer had read the picture, and how many were read;
                     None: none was
    first_picture_s  seconds from the begin of the run
    lanes            ms a frame (median of the whole run) of each stage, by the lane whose thread calls it
    size_fixed       the bundle takes this one size
    multiple         of which its sizes are, pixels
    """

    source: str
    bundle: str
    size: tuple[int, int]
    steps: int
    skip: int
    wanted_fps: float
    reached_fps: float
    dropped_share: float
    delay_ms: dict[str, float | None]
    first_picture_s: float | None
    lanes: dict[str, dict[str, float]]
    size_fixed: bool
    multiple: int

    @property
    def keeps_up(self) -> bool:
        """Nearly all that comes in is shown."""
        return self.reached_fps >= _ENOUGH * self.wanted_fps and self.dropped_share <= 1 - _ENOUGH

    @property
    def bottleneck(self) -> tuple[str, float, float]:
        """The longest stage of the lane that takes longest, its ms a frame, and those of the lane."""
        lane = max(self.lanes.values(), key=lambda stages: sum(stages.values()), default={})
        if not lane:
            return "", 0.0, 0.0
        stage = max(lane, key=lambda name: lane[name])
        return stage, lane[stage], sum(lane.values())

    @property
    def advice(self) -> list[str]:
        """What would bring the rate, each alone, by arithmetic: the time of a frame goes with its pixels and steps."""
        if self.keeps_up:
            return []
        rate = self.wanted_fps / self.reached_fps if self.reached_fps else _LARGEST_LACK
        lack = max(rate, 1 / max(1 - self.dropped_share, 1 / _LARGEST_LACK))
        advice = []
        if self.steps > 1:
            advice.append(f"--steps {max(1, int(self.steps / lack))}: fewer runs of the UNet a frame")
        width, height = (
            max(self.multiple, int(side / math.sqrt(lack)) // self.multiple * self.multiple) for side in self.size
        )
        way = "warpfuse export --size" if self.size_fixed else "--size"
        advice.append(f"{way} {width}x{height}: fewer pixels")
        skip = math.ceil(self.skip * lack)
        advice.append(
            f"--set pace.skip={skip}: the networks run on one frame in {skip}; between, the picture follows the flow"
        )
        return advice

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        stage, ms, lane_ms = self.bottleneck
        found = {"stage": stage, "ms": ms, "lane_ms": round(lane_ms, 3)}
        return {"keeps_up": self.keeps_up, **asdict(self), "bottleneck": found, "advice": self.advice}


def told(trial: Trial) -> list[str]:
    """The trial in plain lines; the last ones say whether the machine keeps up, and what to change."""
    stage, ms, lane_ms = trial.bottleneck
    delay, late = trial.delay_ms["p50"], trial.delay_ms["p95"]
    size = "x".join(map(str, trial.size))
    lines = [
        f"{trial.source} with bundle {trial.bundle} at {size}, {trial.steps} step{'s' * (trial.steps > 1)}",
        f"rate: {trial.reached_fps:.1f} of {trial.wanted_fps:.1f} frames a second, {trial.dropped_share:.1%} dropped",
        f"delay: {delay:.0f} ms, p95 {late:.0f}, from the source to the picture a viewer has decoded"
        if delay is not None and late is not None
        else "delay: no viewer read the number of a picture, so there is no delay to tell",
    ]
    if trial.first_picture_s is not None:
        lines.append(f"first picture: {trial.first_picture_s:.1f} s after the start")
    lines.append(f"slowest: {stage}, {ms:.1f} of the {lane_ms:.1f} ms a frame that its lane takes")
    if trial.keeps_up:
        return [*lines, "this machine keeps up"]
    return [
        *lines,
        "this machine does not keep up; any one of these may help:",
        *(f"  {line}" for line in trial.advice),
    ]


def try_out(
    config: GraphConfig, *, seconds: float = SECONDS, say: Say = silent, stop: threading.Event | None = None
) -> Trial:
    """Run a configuration for so long after its warm-up. Raises BadInput, StreamLost, StageFailed."""
    stop = stop or threading.Event()
    alone = {"sinks": (), "workers": "one", "realtime": True, "frames": None}
    about = load_bundle(config.bundle).about
    watched = _Watched(stop, seconds)
    with contextlib.ExitStack() as undo:
        viewer = Viewer(watched.open, lambda stream: {})
        run = open_run(config.model_copy(update=alone), undo, say=say, stop=stop, viewer=viewer)
        assert isinstance(run, ThreadRun)
        undo.callback(watched.close)
        run.start()
        run.wait(lambda frames, expected: watched.look(time.monotonic_ns(), run.stats()))
        stages = run.stats().stages
        lanes = {
            lane: {node.name: stages[node.name].ms(50) for node in nodes if node.role != "source"}
            for lane, nodes in run.plan.lanes.items()
        }
        before, after = watched.before, watched.after
        if before is None or after is None:
            if stop.is_set():
                raise Stopped("the trial was stopped")
            needs_s = seconds + _WARM_UP_S
            raise BadInput(f"{redact(config.source)}: ended within {needs_s:g} s. Add --loop, or give a longer one")
        took_s = (after[0] - before[0]) / 1e9
        out = _shown(after[1]) - _shown(before[1])
        into = after[1].frames.into - before[1].frames.into
        dropped = after[1].frames.dropped - before[1].frames.dropped
        return Trial(
            source=redact(config.source),
            bundle=after[1].bundle,
            size=after[1].size,
            steps=after[1].steps,
            skip=config.pace.skip,
            wanted_fps=round(float(watched.fps), 3),
            reached_fps=round(out / took_s, 3),
            dropped_share=round(dropped / into, 4) if into else 0.0,
            delay_ms=watched.delay_ms,
            first_picture_s=after[1].first_picture_s,
            lanes={lane: times for lane, times in lanes.items() if times},
            size_fixed=about.size is not None,
            multiple=about.sizes.multiple,
        )


def _shown(stats: Stats) -> int:
    return stats.frames.out - stats.frames.repeated


@dataclass
class _Watched:
    """The sink of a trial and who watches it.

    before, after  (monotonic ns, figures) where counting began and ended; None: not yet
    """

    stop: threading.Event
    seconds: float
    before: tuple[int, Stats] | None = None
    after: tuple[int, Stats] | None = None
    fps: float = 0.0
    _first_ns: int = 0
    _arrived: dict[int, int] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def open(self, stream: str, info: VideoInfo, size: tuple[int, int]) -> "_NumberedSink":
        """The sink, as a `Viewer` opens it."""
        self.fps = float(info.fps)
        sink = _NumberedSink(info, size, self._arrived)
        self._thread = threading.Thread(target=self._watch, args=(sink.address,), name="wf:trial", daemon=True)
        self._thread.start()
        return sink

    def look(self, now_ns: int, stats: Stats) -> None:
        """Asked a few times a second: is the warm-up over, or the trial?"""
        if stats.frames.out and not self._first_ns:
            self._first_ns = now_ns
        if self._first_ns and self.before is None and now_ns - self._first_ns >= _WARM_UP_S * 1e9:
            self.before = now_ns, stats
        if self.before is not None and self.after is None and now_ns - self.before[0] >= self.seconds * 1e9:
            self.after = now_ns, stats
            self.stop.set()

    @property
    def delay_ms(self) -> dict[str, float | None]:
        """Of the pictures that were read between `before` and `after`."""
        begin, end = (at[0] if at is not None else 0 for at in (self.before, self.after))
        counted = [(at, number) for number, at in self._seen.copy().items() if begin <= at <= end]
        delays = [(at - self._arrived[number]) / 1e6 for at, number in counted if number in self._arrived]
        if not delays:
            return {"p50": None, "p95": None, "pictures": 0}
        p50, p95 = (round(float(np.percentile(delays, share)), 1) for share in (50, 95))
        return {"p50": p50, "p95": p95, "pictures": len(delays)}

    def close(self) -> None:
        """Watch no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, address: str) -> None:
        """Ask for each picture that is newer than the last, as the page's script does, and read its number, until the
        sink closes."""
        newest = "0"
        server = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(server):
            while not self._ended.is_set():
                server.request("GET", f"/frame.jpg?after={newest}")
                answer = server.getresponse()
                body = answer.read()
                if answer.status != 200:
                    continue
                newest = answer.headers["X-Number"]
                luma = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)
                number = burnt_code.read(np.asarray(luma, np.uint8))
                if number is not None:
                    self._seen.setdefault(number, time.monotonic_ns())


class _NumberedSink:
    """Shows pictures on a page of this machine, each with its number burned in.

    arrived  gets the arrival at the source of each numbered picture, monotonic ns
    """

    def __init__(self, info: VideoInfo, size: tuple[int, int], arrived: dict[int, int]) -> None:
        self._times = -(-_WIDTH_PX // size[0])  # a small picture is shown larger
        self._page = PageSink("page:0", info, (size[0] * self._times, size[1] * self._times))
        self._arrived = arrived
        self.notes: list[str] = []

    @property
    def address(self) -> str:
        """URL of the page."""
        return self._page.server.address

    def write(self, frame: RawFrame) -> None:
        """Number a picture and show it."""
        number = len(self._arrived)
        rgb = frame.rgb.repeat(self._times, 0).repeat(self._times, 1)
        burnt_code.burn(rgb, number)
        self._arrived[number] = frame.stamp.arrived_ns
        self._page.write(RawFrame(frame.stamp, rgb))

    def close(self, complete: bool) -> None:
        """Close the page."""
        self._page.close(complete)
