"""A run in this process, with a page: the graph of `warpfuse run`, one more sink that shows, and a tap on the flow."""

import contextlib
import threading
import time
from dataclasses import replace
from typing import Any

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.planner import usual_in_flight
from warpfuse.graph.run import concluded
from warpfuse.graph.runtime.opening import ends_of, find_source, prepare_for
from warpfuse.graph.runtime.thread_run import Running
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sinks import check
from warpfuse.stages.stage import Sink
from warpfuse.web.controls import Say
from warpfuse.web.figures import Recent
from warpfuse.web.pictures import Pictures
from warpfuse.web.recorder import Recorder

PAGE = "page:"  # the node of the page among the sinks


class LocalRun:
    """`Controls` over the threads of this process."""

    def __init__(
        self, keys: dict[str, Any], config: GraphConfig, pictures: Pictures, say: Say, stop: threading.Event
    ) -> None:
        """Open the graph and start it. Raises BadInput or StreamLost, Stopped; then nothing is left running."""
        self._lock = threading.Lock()
        self._say = say
        if config.workers not in ("auto", "one"):
            raise ConfigError("a run with a page is one process: leave workers out, or look at it by `warpfuse ctl`")
        for sink in config.sinks:
            check(sink, source=config.source)
        # Few frames on their way, of a file too: what waits between the stages is late to show a change.
        few = config.in_flight or usual_in_flight(config, config.steps)
        shown = config.model_copy(update={"sinks": (*config.sinks, PAGE), "workers": "one", "in_flight": few})
        self._stop = stop
        self._recent = Recent()
        with contextlib.ExitStack() as undo:
            info, connected = find_source(shown.source, stop, shown.size)
            if connected is not None:
                undo.callback(connected.close)
            self._materials = prepare_for(shown, info, say)
            undo.callback(self._materials.close)
            pictures.start_over()
            self._page = page = _PageSink(pictures, self._recent)
            ends = ends_of(shown, info, self._materials.size, connected)

            def sink_of(url: str) -> Sink:
                return page if url == PAGE else ends.sink(url)

            taps = {"source": pictures.saw_source, "flow": pictures.saw_motion}
            self._running = running = Running(
                self._materials, replace(ends, sink=sink_of, taps=taps), self._stop, temporal=True
            )
            undo.callback(running.close)
            self._live = running.live_settings(keys, config)
            running.open()
            self._undo = undo.pop_all()
        self.info = info

    def settings(self) -> dict[str, Any]:
        """As `Controls` says."""
        return self._live.config.model_dump(mode="json")

    def change(self, keys: dict[str, Any]) -> int:
        """As `Controls` says."""
        with self._lock:
            return self._running.book.publish(self._live.changed(keys))

    def stats(self) -> dict[str, Any]:
        """As `Controls` says; the moment is the last two seconds."""
        running, recorder = self._running, self._page.recorder
        moment = self._recent.at(time.monotonic_ns())
        so_far = running.stats()
        report: dict[str, Any] = {
            "fps": moment.fps,
            "latency_ms": {"p50": moment.p50, "p95": moment.p95, "newest": moment.newest},
            "frames": {"in": so_far.frames.into, "out": self._page.frames},
            "dropped": {reason: count for reason, count in so_far.drops.items() if count},
            "stages": {name: {"ms_p50": m.ms(50), "ms_p95": m.ms(95)} for name, m in so_far.stages.items()},
            "backend": self._materials.engines.in_use,
            "precision": self._materials.bundle.precision,
            "device": self._materials.config.device,
            "bundle": self._materials.bundle.about.name,
            "size": list(self._materials.size),
            "paused": running.worker.source is not None and running.worker.source.paused,
            "live": self.info.live,
            "recording": None,
        }
        if recorder is not None:
            error = str(recorder.error) if recorder.error else None
            report["recording"] = {
                "file": recorder.file, "frames": recorder.frames, "dropped": recorder.dropped, "error": error
            }  # fmt: skip
        return report

    def pause(self) -> None:
        """As `Controls` says."""
        self._running.worker.pause(True)

    def resume(self) -> None:
        """As `Controls` says."""
        self._running.worker.pause(False)

    def stop(self) -> None:
        """As `Controls` says."""
        self._stop.set()

    def record(self, file: str | None) -> None:
        """As `Controls` says. The file is whole when this returns."""
        with self._lock:
            recorder, self._page.recorder = self._page.recorder, None
            if recorder is not None:
                recorder.close()
                if recorder.error is not None:
                    raise recorder.error
                self._say(f"recorded {recorder.frames} frames to {recorder.file}")
            if file is not None:
                lossless = not self.info.live
                self._page.recorder = Recorder(file, self.info, self._materials.size, lossless=lossless)

    def wait(self) -> Stats:
        """As `Controls` says. Call it once: it closes what the run held."""
        with self._undo:
            try:
                stats = self._running.wait(say=self._say)
            finally:
                try:
                    self.record(None)
                except WarpfuseError as error:  # the run's own end is the one to tell
                    self._say(str(error))
        return concluded(stats, self._say)


class _PageSink:
    """Shows frames to whoever looks, and hands them to a recorder while there is one."""

    def __init__(self, pictures: Pictures, recent: Recent) -> None:
        self.notes: list[str] = []
        self.frames = 0
        self.recorder: Recorder | None = None
        self._pictures, self._recent = pictures, recent

    def write(self, frame: RawFrame) -> None:
        """Two references and two numbers, unless it is recorded."""
        now = time.monotonic_ns()
        self.frames += 1
        self._recent.add(now, now - frame.stamp.arrived_ns)
        self._pictures.show(frame)
        recorder = self.recorder
        if recorder is not None:
            recorder.write(frame)

    def close(self, complete: bool) -> None:
        """Nothing is held."""
