"""What do the stages themselves cost for a frame, without the networks, the codecs and DIS?

Milliseconds of processor time of one thread, least and median over the frames. On a busy machine the least is relevant.

    python bench/bench_host_work.py [CLIP] [--size WxH] [--frames N] [--bundle B]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from warpfuse.benchmark.ways import pictures_of
from warpfuse.commands.demo import CLIP
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare_source

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support.host_work import SETTLING, HostWork, host_work


def main() -> None:
    """Measure; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--bundle", default="embedded")
    options = parser.parse_args()
    keys = {"source": options.clip, "sinks": ["null:"], "bundle": options.bundle, "size": options.size, "threads": 1}
    config = validate(keys)
    _, context = prepare_source(config)
    with HostWork(context) as loop:
        least = host_work(loop, pictures_of(config, context.size), options.frames)
        for name, ms in least.items():
            print(f"{name:<12} {ms:7.3f} ms  median {statistics.median(loop.ms[name][SETTLING:]):7.3f}")
    total = round(sum(least.values()), 3)
    print(f"{'all':<12} {total:7.3f} ms")
    figures = {name: round(ms, 3) for name, ms in least.items()}
    print(json.dumps({"bench": "host_work", "size": options.size, "ms": total, "stages": figures}))


if __name__ == "__main__":
    main()
