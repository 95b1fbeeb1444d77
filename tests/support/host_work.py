"""The work of the stages for a frame, without the networks and DIS.

Networks return their first outputs again, at no cost, and the time in DIS is not counted. What remains is the work of
the stages: conversion, warping, trust, fusion, sampling.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from warpfuse.benchmark.loop import PlainLoop
from warpfuse.engine.contract import Engine
from warpfuse.engine.feed import Shapes
from warpfuse.engine.open import network_name
from warpfuse.graph.runtime.build import DIS
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.engines import Engines
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.settings import FlowSettings

SETTLING = 3  # frames until a past is there and every buffer has its size


class Played:
    """An engine that returns the outputs of its network's first call with the same shapes. Calls are almost free."""

    def __init__(self, engine: Engine) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.backend, self.device = engine.backend, engine.device
        self.calls = 0
        self._engine = engine
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._slots: list[dict[str, Tensor]] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What was said, in two slots by turns; see `Engine`."""
        self.calls += 1
        shapes = tuple(tuple(inputs[spec.name].shape) for spec in self.inputs)
        if shapes != self._shapes:
            said, self._shapes = self._engine(inputs), shapes
            self._slots = [{name: tensor.clone() for name, tensor in said.items()} for _ in range(2)]
        return self._slots[self.calls % 2]

    def close(self) -> None:
        """Close the network."""
        self._engine.close()


@dataclass
class PlayedEngines(Engines):
    """Opens networks as `Played`. played: all of them, by the network's name."""

    played: dict[str, list[Played]] = field(default_factory=dict)

    def open(self, path: Path, shapes: Shapes | None = None) -> Engine:
        """A network that is played."""
        played = Played(super().open(path, shapes))
        self.played.setdefault(network_name(path), []).append(played)
        return played


class Aside:
    """DIS with a measurement of its time. seconds: processor time of the calling thread, over all calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, dis: Any) -> "Aside":
        """The same for another DIS."""
        self._dis = dis
        return self

    def calc(self, gray: Any, gray_other: Any, flow: Any) -> Any:
        """As OpenCV's."""
        begun = time.thread_time()
        out = self._dis.calc(gray, gray_other, flow)
        self.seconds += time.thread_time() - begun
        return out


class _FlowAside(Flow):
    def __init__(self, settings: FlowSettings, aside: Aside) -> None:
        self._aside = aside
        super().__init__(settings)

    def update(self, settings: FlowSettings) -> None:
        super().update(settings)
        self._dis = self._aside.around(self._dis)


class HostWork(PlainLoop):
    """The plain loop without the time of networks and DIS. `ms` is processor time of the calling thread.

    context  its engines need `threads` of 1, so that all work is done in the calling thread
    """

    def __init__(self, context: RunContext) -> None:
        engines = context.engines
        self._engines = PlayedEngines(engines.backend, engines.device, engines.threads)
        self._aside = Aside()
        config = context.config
        mine = {"flow": _FlowAside(config.stages.flow, self._aside)} if config.flow == DIS else {}
        super().__init__(replace(context, engines=self._engines), mine, self._seconds)

    @property
    def calls(self) -> dict[str, int]:
        """Calls of each network so far."""
        return {name: sum(one.calls for one in played) for name, played in self._engines.played.items()}

    def _seconds(self) -> float:
        return time.thread_time() - self._aside.seconds


def host_work(
    loop: HostWork, pictures: Sequence[RawFrame], frames: int, each: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Least milliseconds of each stage over a number of frames, after warming up. each: called after a frame."""
    for number in range(SETTLING + frames):
        raw = pictures[number % len(pictures)]
        loop.step(replace(raw, stamp=replace(raw.stamp, seq=number, discontinuity=False)))
        each()
    return {name: min(times[SETTLING:]) for name, times in loop.ms.items()}
