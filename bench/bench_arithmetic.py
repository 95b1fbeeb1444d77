"""How much time does each function save that has a special form for CPUs (`stages/cpu`)?

A frame passes all stages. Then each call of the arithmetic is repeated with its arguments, in both forms in turn, with
the cache overwritten in between. Milliseconds are processor time of the thread, for all calls of a frame. The share is
relative to the time of all stages of a frame, with the networks.

    python bench/bench_arithmetic.py [CLIP] [--size WxH] [--calls N] [--bundle B]
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from warpfuse.benchmark.loop import PlainLoop
from warpfuse.benchmark.ways import pictures_of
from warpfuse.commands.demo import CLIP
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.stages import cpu, formulas

SETTLING, FRAMES = 5, 10
Call = tuple[Any, ...]


def frame_of(config: GraphConfig) -> tuple[float, dict[str, list[Call]]]:
    """Milliseconds of a frame, and the arguments of each function in the last frame."""
    _, materials = prepare_source(config)
    pictures = pictures_of(config, materials.size)
    calls: dict[str, list[Call]] = defaultdict(list)
    own = {name: getattr(cpu, name) for name in cpu.__all__}

    def recording(name: str) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            calls[name].append(tuple(copied(one) for one in args))
            return own[name](*args)

        return called

    with PlainLoop(materials, clock=time.thread_time) as loop:
        for number in range(SETTLING + FRAMES):
            if number == SETTLING + FRAMES - 1:  # not timed: copying costs
                ms = sum(statistics.median(times[SETTLING:]) for times in loop.ms.values())
                for name in own:
                    setattr(cpu, name, recording(name))
            raw = pictures[number % len(pictures)]
            loop.step(replace(raw, stamp=replace(raw.stamp, seq=number, discontinuity=False)))
    for name, function in own.items():
        setattr(cpu, name, function)
    return ms, calls


def copied(value: Any) -> Any:
    """A copy of the arguments, which a call may overwrite."""
    return value.clone() if isinstance(value, Tensor) else value


def by_turns(name: str, calls: list[Call], repeats: int) -> tuple[float, float]:
    """Milliseconds of all calls in the form for CPUs, and in the other form."""
    elsewhere = np.zeros(1 << 21, np.float32)
    total = [0.0, 0.0]
    for args in calls:
        found: list[list[float]] = [[], []]
        for turn in range(2 * repeats):
            function = getattr((cpu, formulas)[turn % 2], name)
            given = [copied(one) for one in args]
            elsewhere += 1
            begun = time.thread_time_ns()
            function(*given)
            found[turn % 2].append((time.thread_time_ns() - begun) / 1e6)
        total = [sum_ + statistics.median(ms) for sum_, ms in zip(total, found, strict=True)]
    return total[0], total[1]


def main() -> None:
    """Measure; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(CLIP))
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--bundle", default="embedded")
    options = parser.parse_args()
    keys = {"source": options.clip, "sinks": ["null:"], "bundle": options.bundle, "size": options.size, "threads": 1}
    frame_ms, calls = frame_of(validate(keys))
    print(f"a frame of {options.size}: {frame_ms:.2f} ms")
    saved = {}
    for name in sorted(calls):
        own, other = by_turns(name, calls[name], options.calls)
        saved[name] = round(100 * (other - own) / frame_ms, 2)
        print(f"{name:<16} {len(calls[name])} calls  {own:7.3f} ms  {other:7.3f} ms as formulas  {saved[name]:6.2f} %")
    print(json.dumps({"bench": "arithmetic", "size": options.size, "frame_ms": round(frame_ms, 2), "saved": saved}))


if __name__ == "__main__":
    main()
