"""The stages of a graph called one after another in one thread, without links: what the graph is held against."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

import cv2
import torch

from warpfuse.engine.streams import settle
from warpfuse.graph.build import Materials, open_stage
from warpfuse.graph.plan import plan_graph
from warpfuse.stages.frame import Frame, RawFrame
from warpfuse.stages.stage import Stage


class PlainLoop:
    """Every stage of the plan of `materials`, opened; a context manager, which closes them and the materials.

    ms       of each stage, a value a call: on a CPU its time, on a card the time to launch it
    instead  stages to take in the place of those of the plan, by name
    clock    seconds; what `ms` is told by
    """

    def __init__(
        self,
        materials: Materials,
        instead: Mapping[str, Stage] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self.materials = materials
        self._plan = plan_graph(materials.config)
        self._nodes = [node for node in self._plan.nodes if node.role == "stage"]
        mine = instead or {}
        self._stages = {node.name: mine.get(node.name) or open_stage(node, materials) for node in self._nodes}
        self._before: dict[str, object] = {}
        self.ms: dict[str, list[float]] = {node.name: [] for node in self._nodes}
        torch.set_num_threads(1)  # as the graph does
        cv2.setNumThreads(materials.engines.threads)
        settle(materials.config.device)

    def __enter__(self) -> "PlainLoop":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        settle(self.materials.config.device)
        for stage in self._stages.values():
            stage.close()
        self.materials.close()

    def step(self, frame: RawFrame) -> RawFrame:
        """One frame through every stage; delayed links give what the frame before left."""
        out = self._through({"source": frame}, until="")["download"]
        assert isinstance(out, RawFrame)
        return out

    def step_on_device(self, picture: Frame) -> None:
        """One picture that is on the device through every stage but the way up and the way down."""
        self._through({"upload": picture}, until="download")

    def _through(self, values: dict[str, object], until: str) -> dict[str, object]:
        for node in self._nodes:
            if node.name in values:
                continue
            if node.name == until:
                break
            feeds = [(self._before if link.delay else values).get(link.sender) for link in self._plan.links_into(node)]
            begun = self._clock()
            values[node.name] = self._stages[node.name](*feeds)
            self.ms[node.name].append(1000 * (self._clock() - begun))
        self._before = values
        return values
