"""One benchmark: a bundle at a size and a number of steps, on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warpfuse.benchmark.calls import calls_of_a_frame, floor_of
from warpfuse.benchmark.figure import Figure
from warpfuse.benchmark.machine import Machine
from warpfuse.benchmark.several import several
from warpfuse.benchmark.ways import host_to_host, networks, on_device, pictures_of, source_to_sink
from warpfuse.graph.config import GraphConfig
from warpfuse.graph.opening import prepare_source


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what. figures: the networks first, then the whole."""

    machine: Machine
    bundle: str
    backend: str
    size: tuple[int, int]
    steps: int
    stream: bool
    flow: str
    networks: tuple[Figure, ...]
    whole: tuple[Figure, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All of them."""
        return (*self.networks, *self.whole)


def bench(
    config: GraphConfig,
    machine: Machine,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
    streams: Sequence[int] = (),
) -> Report:
    """Measure. Raises BadInput.

    config   with a source
    seconds  about how long each of the four ways takes, and each number of streams
    streams  numbers of streams that are to share the networks
    """
    _, materials = prepare_source(config, say)
    try:
        calls = calls_of_a_frame(materials)
        floor_ms = floor_of(calls, machine)
        say("each network alone")
        alone = networks(materials, calls, machine, seconds)
    finally:
        materials.close()
    backend = materials.engines.in_use
    pictures = pictures_of(config, materials.size)
    say("device to device")
    device = on_device(config, pictures, floor_ms, seconds)
    frames = max(12, round(seconds * device.fps))
    say(f"host to host, {frames} frames")
    host = host_to_host(prepare_source(config)[1], pictures, floor_ms, frames)
    say("source to sink")
    whole = source_to_sink(config, floor_ms, frames)
    if streams:
        say(f"streams at once: {', '.join(map(str, streams))}")
    at_once = several(config, pictures, floor_ms, frames, streams)
    return Report(
        machine, materials.bundle.about.name, backend, materials.size, config.steps, config.stages.predict.stream,
        config.flow, tuple(alone), (device, host, whole, *at_once),
    )  # fmt: skip


def sustained(config: GraphConfig, frames: int) -> float:
    """Frames a second from host to host, for a sweep: no more is measured. Raises BadInput."""
    _, materials = prepare_source(config)
    return host_to_host(materials, pictures_of(config, materials.size), 0.0, frames).fps
