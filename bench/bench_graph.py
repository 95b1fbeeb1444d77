"""What does the graph itself cost? Measured with empty stages, in one process and in several.

    python bench/bench_graph.py [--frames 3000] [--bundle-frames 120]

1. frames a second through six empty stages in one process, each in its own lane and all in one (goal: 1,000 on two
   cores);
2. the embedded bundle with every stage in its own process and with all in one, alternating (goal: 0.95 of the rate).
"""

import argparse
import json
import statistics
import threading
import time

import numpy as np
import zmq

from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.transports import open_local
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.run import run
from warpfuse.graph.runtime.failures import Faults
from warpfuse.graph.runtime.lane import Lane
from warpfuse.graph.runtime.runner import Given, Runner
from warpfuse.graph.runtime.sink_runner import SinkRunner
from warpfuse.graph.runtime.source_runner import SourceRunner
from warpfuse.graph.runtime.stage_runner import StageRunner
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks.null import NullSink

PICTURE = np.zeros((288, 512, 3), np.uint8)
STAGES = 6
ROUNDS = 3


class Source:
    """The same picture again and again."""

    warning = None

    def __init__(self, frames: int) -> None:
        self.left, self.seq = frames, 0

    def read(self):
        """The next one."""
        if self.seq == self.left:
            return None
        self.seq += 1
        return RawFrame(Stamp(self.seq - 1, self.seq * 40_000_000), PICTURE)

    def close(self) -> None:
        """Nothing is held."""


class Empty:
    """Gives what it gets."""

    inputs = ("frame",)

    def __call__(self, frame):
        """It."""
        return frame

    def update(self, settings) -> None:
        """Nothing to set."""

    def close(self) -> None:
        """Nothing is held."""


def empty_fps(frames: int, *, one_lane: bool) -> float:
    book, clock = SettingsBook(None), time.monotonic_ns
    source = SourceRunner("source", Source(frames), clock, stopped=threading.Event().is_set, book=book)
    stages = [StageRunner(f"s{n}", Empty(), clock, book=book, settings_of=None) for n in range(STAGES)]
    runners: list[Runner] = [source, *stages, SinkRunner("sink", NullSink(), clock, book=book)]
    faults = Faults()
    lanes = [
        Lane(part, faults) for part in ([source], *([stages] if one_lane else [[s] for s in stages]), runners[-1:])
    ]
    with zmq.Context() as context:
        feeds = []
        for number, runner in enumerate(runners):
            outlets, here, feeds, gives = [], feeds, [], False
            if runner is not runners[-1]:
                plan = LinkPlan(f"{number}", runner.stage_name, runners[number + 1].stage_name, "frame")
                gives = one_lane and 0 < number < STAGES
                if gives:
                    feeds = [Given(plan, runner)]
                else:
                    outlet, inlet = open_local(context, plan, 1)
                    outlets, feeds = [outlet], [inlet]
            runner.connect(here, outlets, gives=gives)
        begun = time.perf_counter()
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        seconds = time.perf_counter() - begun
        for lane in lanes:
            lane.disconnect()
    return frames / seconds


def bundle_fps(workers: str, frames: int) -> float:
    source = f"pattern:512x288@25,frames={frames},motion=objects"
    config = validate({"source": source, "sinks": ["null:"], "workers": workers, "fusion": 0.8})
    return run(config).fps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--bundle-frames", type=int, default=120)
    options = parser.parse_args()
    empty: dict[bool, list[float]] = {False: [], True: []}
    for number in range(-1, ROUNDS):
        for one_lane, found in empty.items():
            rate = empty_fps(options.frames if number >= 0 else 200, one_lane=one_lane)
            found += [rate] if number >= 0 else []
    for one_lane, found in empty.items():
        where = "in one lane" if one_lane else "in a lane each"
        print(f"{STAGES} empty stages {where}: {', '.join(f'{fps:.0f}' for fps in found)} fps")
    rates = {"one": [], "stages": []}
    for _ in range(ROUNDS):
        for workers, found in rates.items():
            found.append(bundle_fps(workers, options.bundle_frames))
    for workers, found in rates.items():
        print(f"embedded bundle, workers {workers}: {', '.join(f'{fps:.2f}' for fps in found)} fps")
    result = {
        "bench": "graph",
        "empty_fps": round(statistics.median(empty[False])),
        "empty_lane_fps": round(statistics.median(empty[True])),
        "one_fps": round(statistics.median(rates["one"]), 2),
        "stages_fps": round(statistics.median(rates["stages"]), 2),
    }
    result["ratio"] = round(result["stages_fps"] / result["one_fps"], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
