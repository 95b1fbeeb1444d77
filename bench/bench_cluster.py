"""What does a stream host cost in addition to its streams, and how does the planning of a cluster scale?

Measured are: adding and removing a stream of the embedded bundle while others run; requests for counts and for all
figures, in turn, in processor time of the requesting thread; a step of the controller, in virtual time, for a number of
streams with eight cards a node; and on real Ray, with a head and two nodes on this machine, the time from an order or a
fault to the first picture.

    python bench/bench_cluster.py [--beside N] [--rounds N] [--streams N ...] [--ray N]

The last line is a JSON object. Floors: an add cannot be quicker than the source's first frame; counts cannot be quicker
than reading the counters, some 20 attributes a stream; what a frozen host had cannot go on before its lease is over.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.cluster_hosts import World, config_of, hosts_of

from warpfuse.cluster.controller import Apply, GetStatus, Status, ask_controller
from warpfuse.graph.control.messages import Counts, GetCounts, ask_at
from warpfuse.graph.control.run_directory import runs_folder
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run

PORT, LEASE_S = 6411, 3.0
COMMAND = [sys.executable, "-c", "from warpfuse.cli import main; main()", "cluster"]
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


def file_of(*names: str) -> dict[str, Any]:
    cluster = {"name": "bench", "lease_s": LEASE_S, "reserve": 0, "port": PORT, "orphan_s": 60, "move_every_s": 100000}
    keys = {**CAMERA, "rate": 10, "size": "128x96", "unique": True}
    return {"cluster": cluster, "streams": dict.fromkeys(names, keys)}


def status() -> Status | None:
    with contextlib.suppress(ConfigError):
        told = ask_controller("bench", GetStatus())
        assert isinstance(told, Status)
        return told
    return None


def wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < end, status()
        time.sleep(0.01)


def at_work() -> bool:
    told = status()
    return told is not None and len(told.hosts) == 2 and all(host.state == "runs" for host in told.hosts)


def shows(host: str, stream: str) -> bool:
    """Whether a host has shown a picture of a stream that runs there."""
    with contextlib.suppress(ConfigError):
        told = ask_at(runs_folder() / host.replace(":", "-"), GetCounts(), name=host, timeout_s=0.5)
        assert isinstance(told, Counts)
        return stream in told.streams and told.streams[stream].out > 0 and not told.streams[stream].over
    return False


def host_of(stream: str) -> str:
    told = status()
    return next((own.host for own in told.streams if own.name == stream), "") if told is not None else ""


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """A head and two nodes on this machine."""
    with tempfile.TemporaryDirectory(prefix="wf", dir="/tmp") as folder, contextlib.ExitStack() as undo:
        os.environ["WARPFUSE_RUN"], os.environ["XDG_STATE_HOME"] = folder, f"{folder}/state"
        file = Path(folder) / "cluster.json"
        file.write_text(json.dumps(file_of()))
        for name, words in [
            ("head", ["up", str(file), "--no-hosts"]),
            *((n, ["join", f"127.0.0.1:{PORT}"]) for n in "ab"),
        ]:
            process = subprocess.Popen([*COMMAND, *words, "--node", name], stderr=subprocess.DEVNULL)
            undo.callback(process.wait)
            undo.callback(process.terminate)
            wait(lambda: status() is not None)
        wait(at_work)
        yield


def elsewhere(stream: str, fault: signal.Signals) -> float:
    """Milliseconds from a fault of the stream's host to its first picture on the other."""
    wait(at_work)
    wait(lambda: host_of(stream) != "" and shows(host_of(stream), stream))
    host = host_of(stream)
    process = int((runs_folder() / host.replace(":", "-") / "pid").read_text())
    other = "b:0" if host == "a:0" else "a:0"
    begun = time.perf_counter()
    os.kill(process, fault)
    wait(lambda: shows(other, stream))
    took = (time.perf_counter() - begun) * 1000
    if fault == signal.SIGSTOP:
        os.kill(process, signal.SIGCONT)
    return took


def added(stream: str) -> float:
    """Milliseconds until a stream of the cluster file shows its first picture."""
    wait(at_work)
    begun = time.perf_counter()
    ask_controller("bench", Apply(file_of(stream)))
    wait(lambda: any(shows(host, stream) for host in ("a:0", "b:0")))
    return (time.perf_counter() - begun) * 1000


def removed(stream: str) -> float:
    """Milliseconds until a stream that the cluster file has no more has ended."""
    host = host_of(stream)
    begun = time.perf_counter()
    ask_controller("bench", Apply(file_of()))
    wait(lambda: not shows(host, stream))
    return (time.perf_counter() - begun) * 1000


def of_ray(rounds: int) -> dict[str, Any]:
    took: dict[str, list[float]] = {"add_ms": [], "killed_ms": [], "frozen_ms": [], "remove_ms": []}
    with cluster():
        for number in range(rounds):
            name = f"s{number}"
            took["add_ms"].append(added(name))
            took["killed_ms"].append(elsewhere(name, signal.SIGKILL))
            took["frozen_ms"].append(elsewhere(name, signal.SIGSTOP))
            took["remove_ms"].append(removed(name))
            print({what: round(times[-1]) for what, times in took.items()}, flush=True)
    told = {what: spread(times) for what, times in took.items()}
    return {"rounds": rounds, "lease_s": LEASE_S, **told, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 20, 200, 1000])
    parser.add_argument("--ray", type=int, default=0, metavar="ROUNDS", help="on real Ray; 0: not")
    asked = parser.parse_args()
    if asked.ray:
        print(json.dumps({"ray": of_ray(asked.ray)}))
        return
    host = of_a_host(asked.beside, asked.rounds)
    print(host)
    controllers = [of_a_controller(streams) for streams in asked.streams]
    for controller in controllers:
        print(controller)
    print(json.dumps({"host": host, "controller": controllers}))


if __name__ == "__main__":
    main()
