"""What does it cost to send a picture over a link, compared with ZeroMQ and memcpy alone?

A hop is a round trip: the sender offers a picture, the reader takes it and returns its slot, the sender gets the
credit. It is compared with a ping of 100 bytes over plain ZeroMQ (between the same two threads or processes, with the
same wake-ups), a memcpy of the picture, and for tcp the same bytes over plain ZeroMQ, both with CURVE. All alternate
sample by sample, so that a change of the machine's speed affects all; the second of two samples counts.

    python bench/bench_link.py [--samples N]
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zmq

from warpfuse.graph.links.curve import Keys, admission, as_client, as_server, make_keys
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.shared_memory import RunFolder
from warpfuse.graph.links.transports import open_inlet, open_local, open_outlet
from warpfuse.stages.frame import RawFrame, Stamp

SMALL, LARGE = (512, 512, 3), (1080, 1920, 3)
PING = b"x" * 100

Sample = Callable[[], int]


def picture(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def memcpy(shape: tuple[int, int, int]) -> Sample:
    source, targets = picture(shape), itertools.cycle([picture(shape) for _ in range(4)])  # as a link has slots

    def sample() -> int:
        target = next(targets)
        begun = time.perf_counter_ns()
        np.copyto(target, source)
        return time.perf_counter_ns() - begun

    return sample


def hop(outlet: Outlet, shape: tuple[int, int, int]) -> Sample:
    rgb, seq = picture(shape), iter(range(1 << 40))
    while not outlet._greeted:
        outlet.socket.poll()
        outlet.receive()

    arrived = zmq.Poller()
    arrived.register(outlet.socket, zmq.POLLIN)

    def sample() -> int:
        number = next(seq)
        frame = RawFrame(Stamp(number, number), rgb)
        begun = time.perf_counter_ns()
        outlet.offer(number, frame)
        while outlet.store.in_use:
            arrived.poll()
            outlet.receive()
        return time.perf_counter_ns() - begun

    return sample


def ping(socket: "zmq.Socket[bytes]", payload: Any) -> Sample:
    def sample() -> int:
        begun = time.perf_counter_ns()
        socket.send(payload, copy=len(payload) < 65536)
        socket.recv()
        return time.perf_counter_ns() - begun

    return sample


def read(inlet: Inlet) -> None:
    arrived = zmq.Poller()
    arrived.register(inlet.socket, zmq.POLLIN)
    while not inlet.ended:
        arrived.poll()
        inlet.receive()
        while inlet.ready:
            inlet.take()
            inlet.done()
    inlet.bye()


def echo(socket: "zmq.Socket[bytes]") -> None:
    while len(socket.recv(copy=False)) > 1:
        socket.send(PING)


def _reader(plan: LinkPlan, folder: Path, keys: Path | None) -> None:
    context = zmq.Context()
    with contextlib.closing(open_inlet(context, plan, 1, keys=Keys(keys) if keys else None)) as inlet:
        read(inlet)
    context.term()


def _echo(endpoint: str, folder: Path, keys: Path | None) -> None:
    context = zmq.Context()
    with context.socket(zmq.PAIR) as socket:
        if keys:
            as_client(socket, Keys(keys))
        socket.connect(endpoint)
        echo(socket)
    context.term()


class Roads:
    """All opened connections, with their samples by name."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        make_keys(folder / "keys")
        self.keys = Keys(folder / "keys")
        self.folder, self.stack = folder, stack
        self.context = zmq.Context()
        stack.callback(self.context.term)
        stack.enter_context(admission(self.context, self.keys))
        self.shared = stack.enter_context(RunFolder("bench"))
        self.samples: dict[str, Sample] = {"memcpy 512": memcpy(SMALL), "memcpy 1080": memcpy(LARGE)}
        self.outlets: dict[str, Outlet] = {}

    def ping_inproc(self) -> Sample:
        """Two threads, plain ZeroMQ."""
        here, there = self.context.socket(zmq.PAIR), self.context.socket(zmq.PAIR)
        here.bind("inproc://ping")
        there.connect("inproc://ping")
        self._closes(here, there)
        self._thread(echo, there)
        self.stack.callback(here.send, b"!")
        return ping(here, PING)

    def local(self) -> Sample:
        """Two threads, a link."""
        outlet, inlet = open_local(self.context, LinkPlan("bench", "a", "b", "x"), 1)
        self._closes(inlet, outlet)
        self._thread(read, inlet)
        return self._hop("inproc", outlet, SMALL)

    def ping_between(self, endpoint: str, payload: Any, keys: bool = False) -> Sample:
        """Two processes, plain ZeroMQ, with a small answer."""
        socket = self.context.socket(zmq.PAIR)
        if keys:
            as_server(socket, self.keys)
        socket.bind(endpoint)
        self._closes(socket)
        self._process(_echo, socket.getsockopt_string(zmq.LAST_ENDPOINT), keys)
        self.stack.callback(socket.send, b"!")
        return ping(socket, payload)

    def between(self, name: str, shape: tuple[int, int, int], **plan: Any) -> Sample:
        """Two processes, a link."""
        wanted = LinkPlan(name, "a", "b", "x", **plan)
        tcp = wanted.endpoint.startswith("tcp:")
        outlet = open_outlet(self.context, wanted, 1, folder=self.shared, keys=self.keys if tcp else None)
        self._closes(outlet)
        self._process(_reader, replace(wanted, endpoint=outlet.endpoint) if tcp else wanted, tcp)
        return self._hop(name, outlet, shape)

    def _hop(self, name: str, outlet: Outlet, shape: tuple[int, int, int]) -> Sample:
        self.outlets[name] = outlet

        def stop() -> None:
            outlet.finish()
            while not outlet.finished:
                outlet.socket.poll()
                outlet.receive()

        self.stack.callback(stop)
        return hop(outlet, shape)

    def _thread(self, target: Callable[[Any], None], argument: Any) -> None:
        thread = threading.Thread(target=target, args=(argument,))
        thread.start()
        self.stack.callback(thread.join)

    def _process(self, target: Callable[..., None], first: Any, keys: bool) -> None:
        arguments = (first, self.folder, self.keys.folder if keys else None)
        process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
        process.start()
        self.stack.callback(process.join)

    def _closes(self, *ends: Any) -> None:
        """When threads and processes, which are told after this, are over."""
        for end in ends:
            self.stack.callback(end.close)


@contextlib.contextmanager
def roads() -> Iterator[Roads]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        at = Path(folder)
        made = Roads(at, stack)
        raw = memoryview(picture(SMALL)).cast("B")
        made.samples |= {
            "ping inproc": made.ping_inproc(),
            "inproc": made.local(),
            "ping ipc": made.ping_between(f"ipc://{at}/ping", PING),
            "shm": made.between("shm", SMALL, transport="shm", endpoint=f"ipc://{at}/shm"),
            "shm 1080": made.between("shm 1080", LARGE, transport="shm", endpoint=f"ipc://{at}/shm1080"),
            "raw tcp": made.ping_between("tcp://127.0.0.1:*", raw, keys=True),
            "tcp": made.between("tcp", SMALL, transport="inline", endpoint="tcp://127.0.0.1:*"),
        }
        yield made


def main() -> None:
    """Alternate all of them and print medians with their floors; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a run: a pool in every thread would wait for its own
    with roads() as made:
        times: dict[str, list[float]] = {name: [] for name in made.samples}
        for number in range(-50, options.samples):  # the first warm up
            for name, sample in made.samples.items():
                sample()  # again: what ran in between has emptied the caches
                us = sample() / 1000
                if number >= 0:
                    times[name].append(us)
        copies = made.outlets["shm"].store.copies  # type: ignore[attr-defined]
        sent = made.outlets["shm"].sent
    p50 = {name: round(float(np.median(us)), 1) for name, us in times.items()}
    p99 = {name: round(float(np.percentile(us, 99)), 1) for name, us in times.items()}
    for name in times:
        print(f"{name:<12} {p50[name]:9.1f} us median {p99[name]:9.1f} us p99")
    goals = {
        "inproc": p50["inproc"] <= 1.5 * p50["ping inproc"] + 20,
        "shm": p50["shm"] - p50["memcpy 512"] <= 1.5 * p50["ping ipc"] + 20 and copies == sent,
        "shm 1080": p50["shm 1080"] <= 2000,
        "tcp": p50["tcp"] <= 1.3 * p50["raw tcp"],
    }
    result = {"bench": "link", "samples": options.samples, "us_p50": p50, "us_p99": p99, "goals": goals}
    print(json.dumps({**result, "copies_a_picture": copies / sent}))


if __name__ == "__main__":
    main()
