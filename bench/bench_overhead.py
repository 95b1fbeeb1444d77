"""What does the graph cost, or gain, compared with a plain loop over the same stages?

The loop calls the stages of the plan one after another in one thread: read, flow, networks, write. The graph runs the
same stages in lanes with a thread each, so that decoding and encoding of video overlap with the networks. Both read the
same clip and write a file. They alternate, so that a change of the machine's speed affects both, and have the same
number of threads in the networks and the flow.

    python bench/bench_overhead.py [CLIP] [--frames N] [--rounds N] [--size WxH] [--bundle B]
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from warpfuse.benchmark.loop import PlainLoop
from warpfuse.commands.demo import CLIP
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.graph.runtime.endpoints import endpoints_of
from warpfuse.graph.runtime.thread_run import ThreadRun
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source


def plain_loop(config: GraphConfig, out: Path) -> float:
    """Frames a second of the plain loop."""
    info, context = prepare_source(config)
    with PlainLoop(context) as loop:
        source = open_source(config.source, size=loop.context.size, frames=config.frames)
        sink = open_sink(str(out), info, loop.context.size)
        count, started = 0, time.perf_counter()
        while (frame := source.read()) is not None:
            if (styled := loop.step(frame)) is not None:
                sink.write(styled)
            count += 1
        sink.close(complete=True)
        source.close()
        return count / (time.perf_counter() - started)


def graph(config: GraphConfig, out: Path) -> float:
    """Frames a second of the graph."""
    config = config.model_copy(update={"sinks": (str(out),)})
    info, context = prepare_source(config)
    running = ThreadRun(context, endpoints_of(config, info, context.size))
    running.open()
    running.start()
    try:
        return running.wait().fps
    finally:
        running.close()
        context.close()


def main() -> None:
    """Alternate the two and print the ratio; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--bundle", default="embedded")
    options = parser.parse_args()
    keys = {"source": options.clip, "sinks": ["unused"], "bundle": options.bundle, "size": options.size}
    config = validate({**keys, "frames": options.frames})
    rates: dict[str, list[float]] = {"loop": [], "graph": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-1, options.rounds):  # the first round warms up
            for name, way in (("loop", plain_loop), ("graph", graph)):
                rate = way(config, Path(folder) / f"{name}.mp4")
                print(f"{'warm-up' if number < 0 else number}  {name:<6} {rate:6.2f} fps", flush=True)
                if number >= 0:
                    rates[name].append(rate)
    ratios = [graph_rate / loop_rate for graph_rate, loop_rate in zip(rates["graph"], rates["loop"], strict=True)]
    result = {
        "bench": "overhead",
        "size": options.size,
        "loop_fps": round(statistics.median(rates["loop"]), 2),
        "graph_fps": round(statistics.median(rates["graph"]), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
