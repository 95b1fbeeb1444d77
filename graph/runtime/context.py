"""What a run is opened with: configuration, bundle, size, networks, prompts, and where its messages go.

Several runs may share networks (`RunNetworks`). Each has a context of its own.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from warpfuse.engine.bundle import Bundle, load_bundle
from warpfuse.engine.bundle_file import NetworkName, image_network
from warpfuse.engine.contract import Engine
from warpfuse.engine.cuda_kernels import lacking
from warpfuse.engine.device import is_card
from warpfuse.engine.open import choose_backend, upgrade_of
from warpfuse.engine.precision import choose_precision, cpu_flags
from warpfuse.graph.metrics.report import Setup
from warpfuse.graph.metrics.trace import Track
from warpfuse.graph.plan.config import GraphConfig, validate
from warpfuse.graph.plan.sizing import framing_of, size_of
from warpfuse.graph.plan.streams import Streams
from warpfuse.graph.runtime.endpoints import check_passthrough
from warpfuse.graph.runtime.engines import Engines, SharedEngines, shapes_of
from warpfuse.graph.runtime.sampling import calls_of, idle_steps, rows_of
from warpfuse.stages.cpu.compile import compile_all
from warpfuse.stages.diffusion.image_tokens import ImageTokens
from warpfuse.stages.diffusion.loras import check_input
from warpfuse.stages.diffusion.palette import read_table
from warpfuse.stages.diffusion.prompts import Prompts, StylePrompts, TextPrompts
from warpfuse.stages.geometry.framing import Framing, turned
from warpfuse.stages.sources import probe
from warpfuse.stages.stage import VideoInfo

Say = Callable[[str], None]

_OF_EVERY_STREAM: tuple[NetworkName, ...] = (
    "encoder", "encoder_past", "unet", "unet_shallow", "decoder", "lines",
)  # fmt: skip
_BATCH_OF_A_HOST = 4  # a card builds for a number of rows, and a host does not know how many streams will come


def silent(line: str) -> None:
    """A `Say` that discards its line."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run is opened with.

    size   (width, height) of the pictures in the networks
    rows   most rows in a call of the UNet, where streams share it; None: this run's own (`rows_alone`)
    shape  (width, height) of the source's pictures; None: they need no cropping
    alone  the networks belong to this run and are closed with it
    say    called with lines for the user
    stop   set it, from any thread, to end the run early
    clock  monotonic nanoseconds
    begun_ns  by the clock, when the run began to be opened
    track  records the calls of the stages; None: no trace
    """

    config: GraphConfig
    bundle: Bundle
    size: tuple[int, int]
    engines: Engines
    prompts: Prompts
    rows: int | None = None
    alone: bool = True
    say: Say = silent
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], int] = time.monotonic_ns
    begun_ns: int = field(default_factory=time.monotonic_ns)
    track: Track | None = None
    shape: tuple[int, int] | None = None

    @property
    def framing(self) -> Framing:
        """How pictures of the source become frames."""
        return framing_of(self.config, self.shape or turned(self.size, self.config.rotate), self.size)

    @property
    def setup(self) -> Setup:
        """The setup for `Stats`. It changes when a network moves to a faster backend."""
        config, bundle = self.config, self.bundle
        about = self.engines.in_use, bundle.precision, config.device, bundle.about.name
        return Setup(*about, self.size, config.output or self.size, config.steps)

    @property
    def remembers(self) -> bool:
        """The UNet can take something of earlier frames along the flow."""
        return self.bundle.about.remembers

    @property
    def calls(self) -> int:
        """UNet calls for each frame."""
        return calls_of(self.config, self.bundle)

    @property
    def rows_alone(self) -> int:
        """Rows in a call of the UNet that no other run shares."""
        return rows_of(self.config, self.bundle)

    def close(self) -> None:
        """Close the prompts, and stop building networks that belong to this run. Call it after closing the stages."""
        self.prompts.close()
        if self.alone:
            self.engines.close()


@dataclass(frozen=True, slots=True)
class RunNetworks:
    """The networks of one run, or of several that share them. The creator closes them after the runs.

    rows  most rows in a call of the UNet, where runs share it; else None
    """

    bundle: Bundle
    engines: Engines
    rows: int | None = None
    _kept: list[Engine] = field(default_factory=list)

    def size_of(self, config: GraphConfig, shape: tuple[int, int]) -> tuple[tuple[int, int], str]:
        """The size of a run over pictures of this (width, height): see `choose_size`. Raises ConfigError."""
        about = self.bundle.about
        return size_of(config, shape, about.sizes, about.size)

    def context(
        self,
        config: GraphConfig,
        size: tuple[int, int],
        say: Say,
        *,
        warn: Say | None = None,
        stop: threading.Event | None = None,
        track: Track | None = None,
        shape: tuple[int, int] | None = None,
    ) -> RunContext:
        """The context of one run. Its prompts are checked here. warn, shape: as in `prepare`. Raises BadInput."""
        prompts = open_prompts(config, self.bundle, self.engines, warn or say)
        try:
            prompts(config.prompt, config.negative, config.loras, config.images)
        except BaseException:
            prompts.close()
            raise
        if note := idle_steps(config, self.bundle):
            say(note)
        alone = not isinstance(self.engines, SharedEngines)
        common = self.bundle, size, self.engines, prompts, self.rows, alone
        return RunContext(config, *common, say, stop or threading.Event(), track=track, shape=shape)

    def keep_open(self, config: GraphConfig) -> None:
        """Open the networks that every stream uses, and keep them open while the run has no stream.

        On a card networks are built for one size. If neither the bundle nor the configuration fixes it, nothing is
        opened here; the first stream of each size then opens its networks.
        """
        about, size = self.bundle.about, self.bundle.about.size or config.size
        if config.device != "cpu" and size is None:
            return
        for network in (name for name in _OF_EVERY_STREAM if name in about.networks):
            shapes = shapes_of(about, network, size or (0, 0), self.rows or 1, config.device)
            self._kept.append(self.engines.open(self.bundle.network(network), shapes))

    def close(self) -> None:
        """Stop building networks for a faster backend."""
        while self._kept:
            self._kept.pop().close()
        self.engines.close()


def prepare_source(config: GraphConfig, say: Say = silent) -> tuple[VideoInfo, RunContext]:
    """Probe the configuration's source and make the context of a run over it. Raises BadInput, StreamLost."""
    info = probe(config.source)
    check_passthrough(config, info)
    return info, prepare(config, (info.width, info.height), say)


def prepare(
    config: GraphConfig,
    shape: tuple[int, int],
    say: Say,
    warn: Say | None = None,
    *,
    stop: threading.Event | None = None,
    track: Track | None = None,
) -> RunContext:
    """The context of a run with networks of its own. Raises BadInput.

    shape  (width, height) of the source's pictures
    warn   called during the whole run with parts of a prompt that are ignored; None: `say`
    """
    networks = open_networks({"": config}, say)
    try:
        size, note = networks.size_of(config, shape)
        if note:
            say(note)
        return networks.context(config, size, say, warn=warn, stop=stop, track=track, shape=shape)
    except BaseException:
        networks.close()
        raise


def open_networks(
    configs: Mapping[str, GraphConfig],
    say: Say,
    shared: Streams | None = None,
) -> RunNetworks:
    """Prepare the networks of some runs. A network is opened when a stage asks for it, and at once for a stream host.

    configs  configuration of each run, by name
    shared   the streams that share the networks, with their options; None: one run without sharing

    Raises BadInput.
    """
    common = validate(dict(shared.common)) if shared is not None and shared.host else next(iter(configs.values()))
    backend, why = choose_backend(common.backend, common.device)
    if is_card(common.device) and (lack := lacking()):
        say(f"pictures are warped and fused by torch, in five times as many steps: {lack}")
    compile_loops(common, say)
    bundle, why_precision = _open_bundle(common, backend)
    upgrade, threads = upgrade_of(common.backend, backend, common.device), common.threads or usable_cores()
    make: Callable[..., Engines] = Engines
    batch: int | None = None
    if shared is not None:
        names: tuple[NetworkName, ...] = ("unet", "unet_shallow") if bundle.about.splits else ("unet",)
        unets, patience_s = frozenset(map(bundle.network, names)), shared.gather_ms / 1000
        batch = shared.batch or (_BATCH_OF_A_HOST if shared.host else None)
        make = partial(SharedEngines, unets=unets, batch=batch, patience_s=patience_s)
    engines = make(backend, common.device, threads, upgrade, say)
    say(_about(bundle, engines, why, why_precision))
    if shared is None:
        return RunNetworks(bundle, engines)
    rows = sum(rows_of(config, bundle) for config in configs.values())
    most = bundle.about.batch or (batch if shared.host and batch else min(shared.batch or rows, rows))
    say(
        f"{'all' if shared.host else len(configs)} streams share them, "
        + (f"up to {most} rows in a call of the UNet" if most > 1 else "in turns")
    )
    networks = RunNetworks(bundle, engines, most)
    if shared.host:
        networks.keep_open(common)
    return networks


def usable_cores() -> int:
    """Number of cores this process may run on, which a container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_loops(config: GraphConfig, say: Say) -> None:
    """Compile the stages' loops for a CPU, so that no frame has to wait for the compiler. Raises BadInput.

    Stages on a card have loops on the host too, beside DIS.
    """
    if config.loops_on_host:
        compile_all(say)


def open_prompts(config: GraphConfig, bundle: Bundle, engines: Engines, say: Say = silent) -> Prompts:
    """Open what turns prompts into conditioning: the bundle's table of styles or its text encoder.

    say  called with parts of a prompt that are ignored or may be understood otherwise than meant
    """
    about = bundle.about
    if about.text is None:
        luts = {name: style.lut for name, style in about.styles.items() if style.lut is not None}
        tables = {name: read_table(bundle.folder / lut) for name, lut in luts.items()}
        return StylePrompts(about.styles, about.default_style, config.device, tables)
    engine = engines.open(bundle.network("text"))
    check_input("text", engine.inputs, about.loras)
    tokenizers: dict[str, Path] = {name: bundle.tokenizer(name) for name in about.text.inputs}
    networks = {image.network: bundle.network(image_network(image.network)) for image in about.images}
    images = ImageTokens(about.images, lambda number: engines.open(networks[number]), config.device)
    return TextPrompts(engine, about.text, tokenizers, about.loras, say, images)


def _open_bundle(config: GraphConfig, backend: str) -> tuple[Bundle, str]:
    """The bundle in the precision for this backend, and the reason for that precision. Raises BadInput."""
    bundle = load_bundle(config.bundle)
    precision, why = choose_precision(config.precision, bundle.about, backend, config.device, cpu_flags())
    return bundle.in_precision(precision), why


def _about(bundle: Bundle, engines: Engines, why: str, why_precision: str) -> str:
    then = f"; {engines.upgrade} is built meanwhile" if engines.upgrade else ""
    return (
        f"networks: {bundle.about.name}, on {engines.device} by {engines.backend} ({why}{then}),"
        f" UNet in {bundle.precision} ({why_precision})"
    )
