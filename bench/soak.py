"""A live run for a long time, whose workers are killed and stopped at random: does it go on, and does memory stay flat?

    python bench/soak.py --minutes 10 [--every 20] [--seed 0] [--bundle NAME]

Every so many seconds one worker gets SIGKILL or SIGSTOP. Last line: one JSON object.
"""

import argparse
import json
import os
import random
import signal
import statistics
import threading
import time
from pathlib import Path

import psutil

from warpfuse.graph import control
from warpfuse.graph.config import validate
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.run import Watch, run
from warpfuse.graph.shared_memory import shared_root


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def memory_mib() -> float:
    """Of this process and all of its workers: what is theirs alone, and their share of what is not."""
    total = 0
    for process in [psutil.Process(), *family()]:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return total / 2**20


def hurt(rng: random.Random) -> str:
    """Kill or stop a worker; what was done. The nursery, their parent, is spared: it is the oldest."""
    workers = sorted(family(), key=lambda process: process.create_time())[1:]
    if not workers:
        return ""
    how = rng.choice([signal.SIGKILL, signal.SIGSTOP])
    try:
        os.kill(rng.choice(workers).pid, how)
    except ProcessLookupError:
        return ""
    return how.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=20, help="seconds from one blow to the next; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", default="embedded")
    parser.add_argument("--source", default="pattern:128x96@25,frames=1000000000")
    options = parser.parse_args()
    config = validate(
        {
            "source": options.source, "realtime": True, "sinks": ["null:"], "fusion": 0.8,
            "bundle": options.bundle, "name": f"soak-{os.getpid()}",
        }
    )  # fmt: skip
    rng, stop, ended = random.Random(options.seed), threading.Event(), []
    said: list[str] = []
    watch = Watch(control=True)
    thread = threading.Thread(target=lambda: ended.append(run(config, stop=stop, say=said.append, watch=watch)))
    thread.start()
    until, blows, memory, shown = time.monotonic() + options.minutes * 60, [], [], []
    next_blow = time.monotonic() + (options.every or float("inf"))
    while time.monotonic() < until and thread.is_alive():
        time.sleep(2)
        if time.monotonic() >= next_blow:
            blows.append(hurt(rng))
            next_blow = time.monotonic() + options.every
        memory.append(memory_mib())
        try:
            shown.append(control.ask(config.name, control.GetStats()).stats["frames"]["out"])
        except ConfigError as error:
            print(f"no answer: {error}")
    stop.set()
    thread.join(60)
    assert ended, f"the run broke off: {said[-3:]}"
    frames = ended[0].frames
    assert frames.into + frames.repeated == frames.out + frames.dropped
    half = len(memory) // 2
    result = {
        "bench": "soak",
        "minutes": options.minutes,
        "blows": len([blow for blow in blows if blow]),
        "restarts": ended[0].restarts,
        "in": frames.into,
        "out": frames.out,
        "drops": ended[0].drops,
        "memory_mib": [round(statistics.median(memory[:half])), round(statistics.median(memory[half:]))],
        "left_processes": len(family()),
        "left_memory": len(list(Path(shared_root()).glob("soak*"))),
        "p50_ms": ended[0].latency.ms(50),
        "age_p99_ms": ended[0].age.ms(99),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
