"""The networks of a graph: calls a frame, inputs, and least time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from warpfuse.benchmark.machine import Machine
from warpfuse.benchmark.work import Work, work_of
from warpfuse.engine.feed import Shapes
from warpfuse.graph.runtime.build import DIS, flow_network
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.engines import shapes_of
from warpfuse.stages.diffusion.settings import past_encoder


@dataclass(frozen=True, slots=True)
class NetworkCall:
    """A network of the graph.

    feeds  inputs for measuring it
    times  calls a frame
    work   operations and memory traffic of a call
    """

    name: str
    path: Path
    feeds: dict[str, Tensor]
    times: float
    work: Work


def calls_of_a_frame(context: RunContext) -> list[NetworkCall]:
    """All networks of the graph, with inputs of the right shapes. Raises BadInput."""
    config, about = context.config, context.bundle.about
    fuses = config.stages.fuse.weight > 0
    stream = config.stages.predict.stream
    again = (fuses and config.stages.fuse.reference == "picture") * (2 if stream else 1)
    times = {"encoder": 1, "unet": 1 if stream else context.calls, "decoder": 1}
    if again:
        past = past_encoder(config.stages.encode, about.networks)
        times[past] = times.get(past, 0) + again
    if about.printed:
        times["lines"] = 1
    calls = []
    for name, count in times.items():
        path = context.bundle.network(name)  # type: ignore[arg-type]
        shapes = shapes_of(about, name, context.size, context.rows_alone, "any")
        calls.append(_call(context, name, path, shapes, count))
    if fuses and config.flow != DIS:
        calls.append(_call(context, "flow", *flow_network(context), 1))
    return calls


def _call(context: RunContext, name: str, path: Path, shapes: Shapes | None, times: float) -> NetworkCall:
    engine = context.engines.open(path, shapes)
    feeds = {spec.name: _typical(spec.shape, spec.dtype, context.config.device) for spec in engine.inputs}
    engine.close()
    return NetworkCall(name, path, feeds, times, work_of(path, {key: tuple(x.shape) for key, x in feeds.items()}))


def _typical(shape: Sequence[int | None], dtype: str, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand([n or 1 for n in shape], generator=generator)
    return values.to(getattr(torch, dtype)).to(device)


def floor_of(calls: Sequence[NetworkCall], machine: Machine) -> float:
    """Least milliseconds of a frame: the sum over its network calls, without flow on the host."""
    return sum(call.times * call.work.floor_ms(machine) for call in calls)
