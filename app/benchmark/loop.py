"""The stages of a graph, called one after another in one thread without links, for comparison with the graph."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

import cv2
import torch

from warpfuse.engine.device import settle
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.runtime.build import open_stage
from warpfuse.graph.runtime.context import RunContext
from warpfuse.stages.frame import Frame, RawFrame
from warpfuse.stages.stage import Stage


class PlainLoop:
    """The opened stages of the plan of `context`. A context manager, which closes the stages and the context.

    ms       times of each stage, one value a call: on a CPU of the call, on a card of its launch
    instead  stages that replace those of the plan, by name
    clock    clock for `ms`, seconds
    """

    def __init__(
        self,
        context: RunContext,
        instead: Mapping[str, Stage] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self.context = context
        printed, remembers = context.bundle.about.printed, context.remembers
        self._plan = plan_graph(context.config, calls=context.calls, printed=printed, remembers=remembers)
        self._nodes = [node for node in self._plan.nodes if node.role == "stage"]
        mine = instead or {}
        self._stages = {node.name: mine.get(node.name) or open_stage(node.kind, context) for node in self._nodes}
        self._links = {link.name: deque[object]([None] * link.delay) for link in self._plan.feeds}
        self.ms: dict[str, list[float]] = {node.name: [] for node in self._nodes}
        torch.set_num_threads(1)  # as the graph does
        cv2.setNumThreads(context.engines.threads)
        settle(context.config.device)

    def __enter__(self) -> "PlainLoop":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        settle(self.context.config.device)
        for stage in self._stages.values():
            stage.close()
        self.context.close()

    def step(self, frame: RawFrame) -> RawFrame | None:
        """Pass a frame through all stages. Returns the finished frame; None while a stream batch fills."""
        out = self._through("source", frame).get("download")
        assert out is None or isinstance(out, RawFrame)
        return out

    def step_on_device(self, picture: Frame) -> None:
        """Pass a picture on the device through all stages except upload and download."""
        self._through("upload", picture, leaving="download")

    def _through(self, at: str, value: object, leaving: str = "") -> dict[str, object]:
        """Outputs of the stages. Stages with a value on every link into them are called, in the order of the plan."""
        given: dict[str, object] = {}
        self._hand_on(at, value)
        for node in self._nodes:
            links = [self._links[link.name] for link in self._plan.feeds_of(node)]
            if not all(links):
                continue
            feeds = [link.popleft() for link in links]
            if node.name == leaving:
                break
            begun = self._clock()
            out = self._stages[node.name](**dict(zip(node.inputs, feeds, strict=True)))  # no frame is held here
            self.ms[node.name].append(1000 * (self._clock() - begun))
            if out is not None:
                given[node.name] = out
                self._hand_on(node.name, out)
        return given

    def _hand_on(self, sender: str, value: object) -> None:
        for link in self._plan.feeds:
            if link.sender == sender and link.receiver in self._stages:
                self._links[link.name].append(value)
