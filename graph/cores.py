"""Which core the stages of the loop work on.

The stages between a picture and the next one that is made from it never work at once: each waits for the one before. On
threads of their own they still go from core to core, and every time the next one is woken where another stage is at
work, the whole loop waits for that one's turn to end. With two cores that happens at every second hop. So the loop
keeps to one core, and what does not hang on it, flow, the source's own encoding, video, goes round it. Between
processes a message is handed on by two threads of ZeroMQ, one at either end, so these keep to that core too.
"""

import contextlib
import itertools
import os
from typing import Any

import zmq

from warpfuse.graph.plan import GraphPlan

CORES = 2
"""With so many it pays (bench/LOG.md). With more, one may be at rest for whoever wakes: that has not been measured."""

_turns = itertools.count(os.getpid())


def loop_of(plan: GraphPlan) -> frozenset[str]:
    """The stages that take turns: all on the way from a picture to the next one, where a link is one frame late.

    A link that is later than that leaves room for several frames on the way, and they overlap.
    """
    on_time = [(link.sender, link.receiver) for link in plan.links if not link.delay]
    loop: set[str] = set()
    for link in plan.links:
        if link.delay == 1 and not link.bare:
            after = _reached(link.receiver, on_time)
            loop |= after & _reached(link.sender, [(receiver, sender) for sender, receiver in on_time])
    return frozenset(loop)


def _reached(start: str, steps: list[tuple[str, str]]) -> set[str]:
    reached, new = {start}, {start}
    while new:
        new = {to for origin, to in steps if origin in new} - reached
        reached |= new
    return reached


def next_core(device: str) -> int | None:
    """The core for a loop; loops of one process, and of several, take them by turns. None where that is not done.

    device  of the stages: those on a card wait for the card
    """
    if device != "cpu":
        return None
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores[next(_turns) % CORES] if len(cores) == CORES else None


def leaves(plan: GraphPlan, worker: str) -> bool:
    """The loop goes on in another worker than this, and comes back to it."""
    loop = loop_of(plan)
    home = {node.name: node.worker for node in plan.nodes}
    ends = [(home[link.sender], home[link.receiver]) for link in plan.links if {link.sender, link.receiver} <= loop]
    return any(worker in pair and pair[0] != pair[1] for pair in ends)


def keep_messengers_to(core: int, context: "zmq.Context[Any]") -> None:
    """Let the threads that carry the messages of a context run on this core alone. Before its first socket.

    Where the core was taken away since it was chosen: as before. ZeroMQ would end the process.
    """
    if core in os.sched_getaffinity(0):
        context.set(zmq.THREAD_AFFINITY_CPU_ADD, core)


def keep_to(core: int) -> None:
    """Let the calling thread run on this core alone. Where the core was taken away since it was chosen: as before."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})
