"""One benchmark: a bundle at a size and a number of steps, on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from warpfuse.benchmark.calls import calls_of_a_frame, floor_of
from warpfuse.benchmark.figure import Figure
from warpfuse.benchmark.machine import Machine
from warpfuse.benchmark.several import several
from warpfuse.benchmark.turns import TURNS, there_and_back
from warpfuse.benchmark.ways import host_to_host, networks, on_device, pictures_of, source_to_sink
from warpfuse.engine.open import choose_backend, upgrade_of
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.stages.frame import RawFrame

_FEWEST = 12  # least number of frames in a turn


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Results of a benchmark, with the machine and the configuration.

    networks  figures of each network alone
    whole     figures of whole frames
    """

    machine: Machine
    bundle: str
    backend: str
    precision: str
    size: tuple[int, int]
    steps: int
    stream: bool
    flow: str
    networks: tuple[Figure, ...]
    whole: tuple[Figure, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Figures of the networks, then of whole frames."""
        return (*self.networks, *self.whole)


def bench(
    config: GraphConfig,
    machine: Machine,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
    streams: Sequence[int] = (),
) -> BenchReport:
    """Measure. Raises BadInput.

    config   configuration with a source
    seconds  approximate duration of each of the four measurements, and of each number of streams
    streams  numbers of streams that share the networks, measured one after the other
    """
    config = as_measured(config)
    _, context = prepare_source(config, say)
    try:
        calls = calls_of_a_frame(context)
        floor_ms = floor_of(calls, machine)
        say("each network alone")
        alone = networks(context, calls, machine, seconds)
    finally:
        context.close()
    backend = context.engines.in_use
    pictures = pictures_of(config, context.size)
    whole = _whole(config, pictures, floor_ms, seconds, say)
    frames = max(_FEWEST, round(seconds * whole[0].fps))
    if streams:
        say(f"streams at once: {', '.join(map(str, streams))}")
    at_once = several(config, pictures, floor_ms, frames, streams)
    return BenchReport(
        machine, context.bundle.about.name, backend, context.bundle.precision, context.size, config.steps,
        config.stages.predict.stream, config.flow, tuple(alone), (*whole, *at_once),
    )  # fmt: skip


def as_measured(config: GraphConfig) -> GraphConfig:
    """The configuration with the name of the backend that a run ends up with, so that no other backend is built or
    takes over during a measurement. Raises BackendMissing.
    """
    taken, _ = choose_backend(config.backend, config.device)
    return config.model_copy(update={"backend": upgrade_of(config.backend, taken, config.device) or taken})


def _whole(
    config: GraphConfig, pictures: Sequence[RawFrame], floor_ms: float, seconds: float, say: Callable[[str], None]
) -> list[Figure]:
    """Figures of whole frames between three pairs of ends, measured in turns."""
    device, host, whole = (Figure(name, floor_ms) for name in ("device to device", "host to host", "source to sink"))

    def frames() -> int:
        """Number of frames in a turn, by the frame rate of the loop on the device, which is measured first."""
        return max(_FEWEST, round(seconds / TURNS * device.fps))

    ways: dict[str, Callable[[], None]] = {
        device.name: lambda: on_device(config, pictures, device, seconds / TURNS),
        host.name: lambda: host_to_host(prepare_source(config)[1], pictures, host, frames()),
        whole.name: lambda: source_to_sink(config, whole, frames()),
    }

    def told(name: str) -> None:
        say(name)
        ways[name]()

    there_and_back([partial(told, name) for name in ways])
    return [device, host, whole]


def sustained(config: GraphConfig, frames: int) -> float:
    """Frames a second from host to host, for a sweep. Raises BadInput."""
    config = as_measured(config)
    _, context = prepare_source(config)
    figure = Figure("host to host", 0.0)
    host_to_host(context, pictures_of(config, context.size), figure, frames)
    return figure.fps
