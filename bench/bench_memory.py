"""Does the memory of a run grow with time?

It runs the embedded bundle on a long pattern and reads the resident set of the process as frames come out. After the
first 200 frames it must not grow. The allocator's noise is about 1 %.

    python bench/bench_memory.py [--frames N] [--settle N] [--size WxH]
"""

import argparse
import json
import tempfile
from pathlib import Path

import psutil

from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run


def main() -> None:
    """Run, sample, and print the growth; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--settle", type=int, default=200)
    parser.add_argument("--size", default="256x256")
    options = parser.parse_args()
    process, samples = psutil.Process(), []

    def sample(frames: int, total: int | None) -> None:
        samples.append((frames, process.memory_info().rss))

    with tempfile.TemporaryDirectory() as folder:
        keys = {"source": f"pattern:{options.size}@25,frames={options.frames}", "sinks": [str(Path(folder) / "o.mp4")]}
        stats = run(validate({**keys, "size": options.size}), progress=sample)
    settled = [rss for frames, rss in samples if frames >= options.settle]
    for frames, rss in samples[:: max(1, len(samples) // 12)]:
        print(f"{frames:6d} frames  {rss / 2**20:8.1f} MiB")
    result = {
        "bench": "memory",
        "frames": stats.frames.out,
        "mib_settled": round(settled[0] / 2**20, 1),
        "mib_end": round(settled[-1] / 2**20, 1),
        "mib_peak": round(max(settled) / 2**20, 1),
        "growth_percent": round(100 * (settled[-1] / settled[0] - 1), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
