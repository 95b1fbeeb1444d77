"""What does a stream host cost in addition to its streams, and how does the planning of a cluster scale?

Measured are: adding and removing a stream of the embedded bundle while others run; requests for counts and for all
figures, in turn, in processor time of the requesting thread; and a step of the controller, in virtual time, for a
number of streams with eight cards a node.

    python bench/bench_cluster.py [--beside N] [--rounds N] [--streams N ...]

The last line is a JSON object. Floors: an add cannot be quicker than the source's first frame; counts cannot be quicker
than reading the counters, some 20 attributes a stream.
"""

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.cluster_hosts import World, config_of, hosts_of

from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run

CAMERA = {"source": "pattern:128x96@10,live=1,frames=1000000", "sinks": ["null:"]}


def spread(ms: list[float]) -> dict[str, float]:
    """Median, 99th percentile and longest of some durations, in milliseconds."""
    ordered = sorted(ms)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return {"p50": round(statistics.median(ms), 2), "p99": round(p99, 2), "max": round(ordered[-1], 2)}


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    call()
    return (clock() - begun) * 1000


def of_a_host(beside: int, rounds: int) -> dict[str, Any]:
    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        host: Any = open_run(read_streams({"host": True, "threads": 1}), undo, stop=stop)
        host.start()
        waiting = threading.Thread(target=host.wait)
        waiting.start()
        try:
            for number in range(beside):
                host.add(f"beside{number}", CAMERA)
            adds, removes, counts, figures = list[float](), list[float](), list[float](), list[float]()
            for number in range(rounds):
                adds.append(timed(lambda name=f"s{number}": host.add(name, CAMERA), time.perf_counter))
                counts.append(timed(host.counts, time.thread_time))
                figures.append(timed(lambda: host.stats().to_dict(), time.thread_time))
                removes.append(timed(lambda name=f"s{number}": host.remove(name), time.perf_counter))
        finally:
            stop.set()
            waiting.join()
    return {
        "beside": beside,
        "add_ms": spread(adds),
        "remove_ms": spread(removes),
        "counts_cpu_ms": spread(counts),
        "figures_cpu_ms": spread(figures),
    }


def of_a_controller(streams: int) -> dict[str, Any]:
    """Durations of a step of the controller: the heartbeats of all hosts, and the decisions. It includes the time of
    the simulated hosts."""
    nodes = max(2, -(-streams // 64) + 1)
    world = World(config_of(streams, megapixel_ms=20.0), hosts_of(nodes, cards=8))
    placing = sum(timed(world.step, time.thread_time) for _ in range(2))
    quiet = [timed(world.step, time.thread_time) for _ in range(6)]
    for card in range(8):
        world.happen("kill", card)
    losing = [timed(world.step, time.thread_time) for _ in range(20)]
    unplaced = sum(name not in world.controller.placed for name in world.controller.config.streams)
    return {
        "streams": streams,
        "cards": nodes * 8,
        "placing_cpu_ms": round(placing, 1),
        "quiet_step_cpu_ms": spread(quiet),
        "step_with_a_lost_node_cpu_ms": spread(losing),
        "unplaced": unplaced,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 20, 200, 1000])
    asked = parser.parse_args()
    host = of_a_host(asked.beside, asked.rounds)
    print(host)
    controllers = [of_a_controller(streams) for streams in asked.streams]
    for controller in controllers:
        print(controller)
    print(json.dumps({"host": host, "controller": controllers}))


if __name__ == "__main__":
    main()
