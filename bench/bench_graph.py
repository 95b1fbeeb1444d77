"""What the graph itself costs: stages that do nothing, in one process and in several.

    python bench/bench_graph.py [--frames 3000] [--bundle-frames 120]

1. frames a second through six empty stages in one process (goal: 1,000 on two cores);
2. the embedded bundle, every stage in a process of its own against all in one, alternating (goal: 0.95 of its rate).
"""

import argparse
import json
import statistics
import threading
import time

import numpy as np
import zmq

from warpfuse.graph.config import validate
from warpfuse.graph.faults import Faults
from warpfuse.graph.halt import Halt
from warpfuse.graph.link import LinkPlan
from warpfuse.graph.run import run
from warpfuse.graph.runner import Runner
from warpfuse.graph.settings import SettingsBook
from warpfuse.graph.sink_runner import SinkRunner
from warpfuse.graph.source_runner import SourceRunner
from warpfuse.graph.stage_runner import StageRunner
from warpfuse.graph.transports import open_local
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


def empty_fps(frames: int) -> float:
    faults, book, clock = Faults(), SettingsBook(None), time.monotonic_ns
    runners: list[Runner] = [
        SourceRunner("source", Source(frames), clock, faults, stopped=threading.Event().is_set, book=book)
    ]
    runners += [StageRunner(f"s{n}", Empty(), clock, faults, book=book, settings_of=None) for n in range(STAGES)]
    runners.append(SinkRunner("sink", NullSink(), clock, faults))
    with zmq.Context() as context:
        halt, before = Halt(), None
        for number, runner in enumerate(runners):
            outlet = None
            if runner is not runners[-1]:
                plan = LinkPlan(f"{number}", runner.stage_name, runners[number + 1].stage_name, "frame")
                outlet, inlet = open_local(context, plan, 1)
            runner.connect([before] if before else [], [outlet] if outlet else [], halt)
            before = inlet
        begun = time.perf_counter()
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        seconds = time.perf_counter() - begun
        for runner in runners:
            runner.disconnect()
        halt.close()
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
    empty_fps(200)
    empty = [empty_fps(options.frames) for _ in range(ROUNDS)]
    print(f"{STAGES} empty stages: {', '.join(f'{fps:.0f}' for fps in empty)} fps")
    rates = {"one": [], "stages": []}
    for _ in range(ROUNDS):
        for workers, found in rates.items():
            found.append(bundle_fps(workers, options.bundle_frames))
    for workers, found in rates.items():
        print(f"embedded bundle, workers {workers}: {', '.join(f'{fps:.2f}' for fps in found)} fps")
    result = {
        "bench": "graph",
        "empty_fps": round(statistics.median(empty)),
        "one_fps": round(statistics.median(rates["one"]), 2),
        "stages_fps": round(statistics.median(rates["stages"]), 2),
    }
    result["ratio"] = round(result["stages_fps"] / result["one_fps"], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
