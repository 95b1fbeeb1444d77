"""Does a long run survive workers that are killed and stopped at random, and does its memory stay constant?

    python bench/soak.py --minutes 60 [--every 20] [--seed 0] [--bundle NAME]   a live source, with faults
    python bench/soak.py --frames 100000 --bundle tiny --workers stages      a file, without faults

It ends after a number of minutes or frames, whichever comes first. Every `--every` seconds a worker gets SIGKILL or
SIGSTOP. Memory is that of this process and its workers, as medians over quarters of the run. `growth` is the difference
of the last quarter and the second, since the first fills caches. Last line: one JSON object.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from warpfuse.graph.control import messages
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.links.shared_memory import shared_root
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.run import Observers, run

TICK_S = 2
SAMPLE_S = 10


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def memory_mib() -> float:
    """Memory of this process and all its workers (PSS): private pages, and their share of shared ones."""
    total = 0
    for process in [psutil.Process(), *family()]:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return total / 2**20


def hurt(rng: random.Random) -> str:
    """Kill or stop a random worker. Returns what was done. The fork server, which is the oldest process, is spared."""
    workers = sorted(family(), key=lambda process: process.create_time())[1:]
    if not workers:
        return ""
    how = rng.choice([signal.SIGKILL, signal.SIGSTOP])
    try:
        os.kill(rng.choice(workers).pid, how)
    except ProcessLookupError:
        return ""
    return how.name


def tiny(folder: Path) -> str:
    """The tests' bundle whose networks only rearrange pixels, to exercise the graph without diffusion."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    from support import exact

    return exact.write(folder / "exact")


def settings(options: argparse.Namespace, folder: Path) -> GraphConfig:
    keys = {
        "source": options.source, "sinks": ["null:"], "fusion": 0.8, "name": f"soak-{os.getpid()}",
        "realtime": not options.frames, "bundle": tiny(folder) if options.bundle == "tiny" else options.bundle,
    }  # fmt: skip
    if options.workers:
        keys["workers"] = options.workers
    if options.bundle == "tiny":
        keys["prompt"] = "noisy"
    return validate(keys)


class Watched:
    """Observations of a run from outside."""

    def __init__(self, options: argparse.Namespace, name: str) -> None:
        self.options, self.name = options, name
        self.blows: list[str] = []
        self.memory: list[float] = []
        self.unanswered = 0
        self.shown = 0

    def look(self, thread: threading.Thread) -> None:
        """Observe until the time is over, the frames are shown, or the run has ended."""
        rng, every = random.Random(self.options.seed), self.options.every or float("inf")
        begun = time.monotonic()
        blow_at, sample_at, line_at = begun + every, begun, begun + 300
        while time.monotonic() < begun + self.options.minutes * 60 and thread.is_alive():
            thread.join(TICK_S)
            now = time.monotonic()
            if now >= blow_at:
                self.blows.append(hurt(rng))
                blow_at = now + every
            if now >= sample_at:
                self.memory.append(memory_mib())
                self._ask()
                sample_at = now + SAMPLE_S
            if now >= line_at:
                print(f"{(now - begun) / 60:.0f} min, {self.shown} frames, {self.memory[-1]:.0f} MiB", flush=True)
                line_at = now + 300
            if self.options.frames and self.shown >= self.options.frames:
                return

    def quarters(self) -> list[int]:
        """Median memory of each quarter, MiB."""
        n = len(self.memory)
        return [round(statistics.median(self.memory[n * i // 4 : n * (i + 1) // 4] or [0])) for i in range(4)]

    def _ask(self) -> None:
        try:
            self.shown = messages.ask(self.name, messages.GetStats()).stats["frames"]["out"]
        except ConfigError:
            self.unanswered += 1


def result(watched: Watched, stats: Stats, minutes: float) -> dict[str, object]:
    frames, quarters = stats.frames, watched.quarters()
    return {
        "bench": "soak",
        "minutes": round(minutes, 1),
        "blows": len([blow for blow in watched.blows if blow]),
        "restarts": stats.restarts,
        "unanswered": watched.unanswered,
        "in": frames.into,
        "out": frames.out,
        "adds_up": frames.into + frames.repeated == frames.out + frames.dropped,
        "drops": stats.drops,
        "memory_mib": quarters,
        "growth_mib": quarters[3] - quarters[1],
        "left_processes": len(family()),
        "left_memory": len(list(Path(shared_root()).glob(f"soak_{os.getpid()}*"))),
        "p50_ms": stats.latency.ms(50),
        "age_p99_ms": stats.age.ms(99),
        "age_max_ms": stats.age.max_ms,
        "load": round(os.getloadavg()[2], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--frames", type=int, help="end after so many; the source is then a file that waits")
    parser.add_argument("--every", type=float, help="seconds from one blow to the next; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", default="embedded", help="a bundle, or: tiny")
    parser.add_argument("--workers", help="one or stages")
    parser.add_argument("--source", default="pattern:128x96@25,frames=1000000000")
    options = parser.parse_args()
    if options.every is None:
        options.every = 0 if options.frames else 20
    stop, ended, said = threading.Event(), [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as undo:
        config = settings(options, Path(folder))
        undo.callback(stop.set)
        begun = time.monotonic()
        arguments = {"stop": stop, "say": said.append, "observers": Observers(control=True)}
        thread = threading.Thread(target=lambda: ended.append(run(config, **arguments)))
        thread.start()
        watched = Watched(options, config.name)
        watched.look(thread)
        stop.set()
        thread.join(120)
    assert ended, f"the run broke off: {said[-3:]}"
    outcome = result(watched, ended[0], (time.monotonic() - begun) / 60)
    print(json.dumps(outcome))
    whole = outcome["adds_up"] and not outcome["left_processes"] and not outcome["left_memory"]
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
