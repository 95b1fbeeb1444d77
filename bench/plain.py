"""The yardstick of the benches: the stages of a plan called in turn by one thread, with nothing in between."""

import time
from types import TracebackType

import cv2
import torch

from warpfuse.graph.build import Materials, open_stage
from warpfuse.graph.config import GraphConfig
from warpfuse.graph.plan import plan_graph
from warpfuse.graph.run import prepare
from warpfuse.stages.frame import RawFrame
from warpfuse.stages.sources import open_source, probe


class PlainLoop:
    """A context manager; `step` takes a frame through every stage. `ms` holds each stage's times, newest last."""

    def __init__(self, config: GraphConfig) -> None:
        self.info = probe(config.source)
        self.materials: Materials = prepare(config, (self.info.width, self.info.height), lambda line: None)
        self._plan = plan_graph(config)
        self._nodes = [node for node in self._plan.nodes if node.role == "stage"]
        self._stages = {node.name: open_stage(node, self.materials) for node in self._nodes}
        self._before: dict[str, object] = {}
        self.ms: dict[str, list[float]] = {node.name: [] for node in self._nodes}
        self.source = open_source(config.source, size=self.materials.size, frames=config.frames)
        torch.set_num_threads(1)  # as the graph does
        cv2.setNumThreads(self.materials.engines.threads)

    def __enter__(self) -> "PlainLoop":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.source.close()
        for stage in self._stages.values():
            stage.close()
        self.materials.close()

    def step(self, frame: RawFrame) -> RawFrame:
        """One frame through every stage; delayed links give what the frame before left."""
        values: dict[str, object] = {"source": frame}
        for node in self._nodes:
            feeds = [(self._before if link.delay else values).get(link.sender) for link in self._plan.links_into(node)]
            begun = time.perf_counter()
            values[node.name] = self._stages[node.name](*feeds)
            self.ms[node.name].append(1000 * (time.perf_counter() - begun))
        self._before = values
        out = values["download"]
        assert isinstance(out, RawFrame)
        return out
