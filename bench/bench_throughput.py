"""How many frames a second does the embedded bundle restyle from file to file, and what is the upper limit?

The floor is the sum of the times of the networks and the flow: the time of a frame if everything else were free and the
cores never idle.

    python bench/bench_throughput.py [CLIP] [--size WxH ...] [--frames N] [--rounds N]
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from warpfuse.benchmark.loop import PlainLoop
from warpfuse.commands.demo import CLIP
from warpfuse.engine.backends.onnxruntime import SLOTS
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.run import run
from warpfuse.graph.runtime.context import prepare_source, usable_cores
from warpfuse.stages.sources import open_source

HEAVY = ("encode", "flow", "encode_past", "predict", "decode")


def floor_ms(config: GraphConfig) -> dict[str, float]:
    """Median milliseconds of each network and of the flow, one at a time on an idle machine."""
    _, context = prepare_source(config)
    with PlainLoop(context) as loop:
        source = open_source(config.source, size=loop.context.size, frames=config.frames)
        while (frame := source.read()) is not None:
            loop.step(frame)
        source.close()
        return {name: round(statistics.median(loop.ms[name][SLOTS + 1 :]), 2) for name in HEAVY}


def main() -> None:
    """Measure each size; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--size", nargs="+", default=["256x256", "512x512"])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, Any] = {"bench": "throughput", "cores": usable_cores(), "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.size:
            keys = {"source": options.clip, "sinks": [str(Path(folder) / "out.mp4")], "size": size}
            config = validate({**keys, "frames": options.frames})
            runs = [run(config).to_dict() for _ in range(options.rounds + 1)][1:]
            floor = floor_ms(config.model_copy(update={"frames": 30}))
            fps = statistics.median(one["fps"] for one in runs)
            result["sizes"][size] = {
                "fps": round(fps, 2),
                "ms_a_frame": round(1000 / fps, 1),
                "latency_p50_ms": statistics.median(one["latency_ms"]["p50"] for one in runs),
                "floor_ms": round(sum(floor.values()), 1),
                "networks_ms": floor,
            }
            print(f"{size}: {fps:.1f} fps, {1000 / fps:.1f} ms a frame; networks and flow alone {floor}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
