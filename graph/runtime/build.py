"""Open the stages of a plan."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from warpfuse.engine.bundle import Bundle, load_flow_bundle
from warpfuse.engine.contract import Engine
from warpfuse.engine.feed import Shapes
from warpfuse.graph.metrics.report import Setup
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import NodePlan
from warpfuse.graph.runtime.engines import Engines, flow_shapes, shapes_of
from warpfuse.stages.diffusion.attention import CrossFrame, check_attention, check_memory
from warpfuse.stages.diffusion.composite import Composite, CompositeSettings
from warpfuse.stages.diffusion.decode import Decode
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.encode import Encode
from warpfuse.stages.diffusion.fuse import Blend, Fuse
from warpfuse.stages.diffusion.loras import check_input
from warpfuse.stages.diffusion.palette import read_table
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.prompts import Prompts, StylePrompts, TextPrompts
from warpfuse.stages.diffusion.reference_warp import PullLatents, PullPictures
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.download import Download
from warpfuse.stages.motion.compose_motion import ComposeMotion
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.network_flow import FlowNetwork
from warpfuse.stages.motion.warp import Warp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import flow_level, level_at, levels, variance_exploding, zero_terminal
from warpfuse.stages.solvers.pair import CLEAN, Level
from warpfuse.stages.stage import Stage
from warpfuse.stages.upload import Upload

DIS = "dis"  # the flow that needs no bundle
_FLOWS = {"embedded": "embedded-flow"}  # what the bundles of the package are called behind --flow


@dataclass(frozen=True, slots=True)
class Materials:
    """What stages are built from: the configuration, the verified bundle, the size, and who opens its networks.

    rows  of a call of the UNet, where streams share it; none: those of this graph alone (`rows_of`)
    """

    config: GraphConfig
    bundle: Bundle
    size: tuple[int, int]
    engines: Engines
    prompts: Prompts
    rows: int | None = None

    @property
    def attends(self) -> bool:
        """Whether the UNet sees tokens of earlier frames."""
        return self.bundle.about.attention is not None

    @property
    def setup(self) -> Setup:
        """What `--stats` tells of them, now: a network may have moved to a faster backend."""
        config, bundle = self.config, self.bundle
        about = self.engines.in_use, bundle.precision, config.device, bundle.about.name
        return Setup(*about, self.size, config.steps)

    def close(self) -> None:
        """Stop building, close what turns prompts into tensors. After the stages."""
        self.engines.close()
        self.prompts.close()


def usable_cores() -> int:
    """Cores this process may run on; a container's limit counts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_prompts(
    config: GraphConfig, bundle: Bundle, engines: Engines, say: Callable[[str], None] = lambda line: None
) -> Prompts:
    """What turns a bundle's prompts into conditioning: its styles, or its text encoder, opened.

    say  is told what of a prompt is left out or taken otherwise than it may be meant
    """
    about = bundle.about
    if about.text is None:
        luts = {name: style.lut for name, style in about.styles.items() if style.lut is not None}
        tables = {name: read_table(bundle.folder / lut) for name, lut in luts.items()}
        return StylePrompts(about.styles, about.default_style, config.device, tables)
    engine = engines.open(bundle.network("text"))
    check_input("text", engine.inputs, about.loras)
    tokenizers: dict[str, Path] = {name: bundle.tokenizer(name) for name in about.text.inputs}
    return TextPrompts(engine, about.text, tokenizers, about.loras, say)


def predict_settings(config: GraphConfig, prompts: Prompts) -> PredictSettings:
    """The part of the configuration that sampling takes. Raises StyleError or LoraError for an unknown name."""
    return PredictSettings(
        conditioning=prompts(config.prompt, config.negative, config.loras),
        strength=config.strength,
        steps=config.steps,
        fuse=config.stages.fuse,
        guidance=config.stages.predict.as_guidance(),
        warp=config.stages.warp,
        attention=config.stages.predict.attention,
    )


def composite_settings(config: GraphConfig, prompts: Prompts) -> CompositeSettings:
    """The part of the configuration that the composite takes. Raises StyleError for an unknown name."""
    asked = prompts(config.prompt, config.negative, config.loras)
    assert asked.palette is not None, "a bundle that draws lines has styles"
    return CompositeSettings(asked.given["style"], asked.palette, config.strength, config.stages.fuse)


def settings_of(kind: str, prompts: Prompts) -> Callable[[GraphConfig], Any] | None:
    """How a stage of this kind finds its own settings in a configuration; None if it has none."""
    pickers: dict[str, Callable[[GraphConfig], Any]] = {
        "composite": partial(composite_settings, prompts=prompts),
        "flow": lambda config: config.stages.flow if config.flow == DIS else config.stages.flow.trust,
        "warp": lambda config: config.stages.warp,
        "fuse": lambda config: config.stages.fuse,
        "blend": lambda config: config.stages.fuse,
        "predict": partial(predict_settings, prompts=prompts),
    }
    return pickers.get(kind)


def open_stage(node: NodePlan, materials: Materials) -> Stage:
    """Build the stage of a node; those with a network open it. Raises BadInput."""
    if node.kind == "predict":
        return _predict(materials, node.inputs)
    return _BUILDERS[node.kind](materials)


def idle_steps(config: GraphConfig, bundle: Bundle) -> str | None:
    """What to say where the steps asked for leave the picture as it is, with the remedy; None where they do not."""
    spacing = _spacing(bundle)
    if config.steps > 1 or spacing is None or not spacing.one_step_is_idle:
        return None
    return (
        f"steps 1: the sampler of this bundle ({spacing.name}) puts its one step where next to no noise is, so the"
        " picture stays the source. Use --steps 2 or more"
    )


def calls_of(materials: Materials) -> int:
    """Network calls of a frame: its steps, or more where a solver asks twice a step."""
    return _sampling(materials).calls(materials.config.steps)


def rows_of(materials: Materials) -> int:
    """Rows of a network call: one, or those of a stream batch; twice as many where guidance asks about each twice."""
    options = materials.config.stages.predict
    return (calls_of(materials) if options.stream else 1) * (2 if options.guidance == "full" else 1)


def _upload(m: Materials) -> Stage:
    return Upload(m.size, m.config.device)


def _encode(m: Materials) -> Stage:
    return Encode(_network("encoder", m), m.bundle.about.latent.scale)


def _flow(m: Materials) -> Stage:
    if m.config.flow == DIS:
        return Flow(m.config.stages.flow)
    return FlowNetwork(m.engines.open(*flow_network(m)), m.config.stages.flow.trust)


def flow_network(m: Materials) -> tuple[Path, Shapes | None]:
    """The network that gives the flow, and the shapes it is opened for. Raises BundleError."""
    bundle = load_flow_bundle(_FLOWS.get(m.config.flow, m.config.flow))
    return bundle.network(), flow_shapes(bundle.about, m.size, m.config.stages.flow.long_side)


def _warp(m: Materials) -> Stage:
    return Warp(m.config.stages.warp, m.bundle.about.latent.downscale)


def _compose_motion(m: Materials) -> Stage:
    return ComposeMotion(calls_of(m))


def _sampling(m: Materials) -> Sampling:
    about = m.bundle.about
    schedule = about.levels
    solver = open_solver(about.solver.name, **about.solver.options)
    table = levels(schedule.schedule, schedule.beta_start, schedule.beta_end, schedule.train_timesteps)
    if schedule.zero_terminal_snr:
        table = zero_terminal(table)
    level_of: dict[str, Callable[[float], Level]] = {
        "vp": partial(level_at, table),
        "ve": lambda timestep: variance_exploding(level_at(table, timestep)),
        "flow": partial(flow_level, train_timesteps=schedule.train_timesteps, shift=schedule.shift),
    }
    steps = about.steps
    return Sampling(
        prediction=about.prediction,
        solver=solver,
        level_of=level_of[solver.space],
        karras=table if about.solver.karras and solver.space == "ve" else None,
        top=steps.top,
        floor=steps.floor,
        strength_scales_style=about.strength_scales_style,
        spacing=_spacing(m.bundle),
        end=CLEAN if steps.end == "clean" else level_of[solver.space](0.0),
    )


def _spacing(bundle: Bundle) -> Spacing | None:
    steps = bundle.about.steps
    if steps.spacing == "even":
        return None
    return Spacing(steps.spacing, bundle.about.levels.train_timesteps, steps.offset, steps.original_steps)


def _predict(m: Materials, inputs: tuple[str, ...]) -> Stage:
    sampling, unet = _sampling(m), _network("unet", m)
    check_input("unet", unet.inputs, m.bundle.about.loras)
    check_memory(unet.inputs, m.bundle.about.attention)
    check_attention(m.config.stages.predict.attention, m.attends)
    return Predict(
        Denoise(unet, sampling),
        sampling,
        predict_settings(m.config, m.prompts),
        m.config.seed,
        m.config.device,
        inputs=inputs,
        stream=m.config.stages.predict.stream,
        pull=_pull(m),
        attention=_attention(m, unet),
    )


def _attention(m: Materials, unet: Engine) -> CrossFrame | None:
    about = m.bundle.about.attention
    if about is None:
        return None
    dtype = next(spec.dtype for spec in unet.inputs if spec.name == "past")
    return CrossFrame(about, getattr(torch, dtype), torch.device(m.config.device))


def _pull(m: Materials) -> PullLatents | PullPictures | None:
    match m.config.stages.fuse.between:
        case "latent":
            return PullLatents()
        case "picture":
            return PullPictures(_network("decoder", m), _network("encoder", m), m.bundle.about.latent.scale)
        case _:
            return None


def _fuse(m: Materials) -> Stage:
    return Fuse(m.config.stages.fuse)


def _blend(m: Materials) -> Stage:
    return Blend(m.config.stages.fuse)


def _decode(m: Materials) -> Stage:
    return Decode(_network("decoder", m), m.bundle.about.latent.scale)


def _composite(m: Materials) -> Stage:
    return Composite(_network("lines", m), composite_settings(m.config, m.prompts))


def _download(_: Materials) -> Stage:
    return Download()


_BUILDERS: dict[str, Callable[[Materials], Stage]] = {
    "upload": _upload,
    "encode": _encode,
    "flow": _flow,
    "warp": _warp,
    "compose_motion": _compose_motion,
    "fuse": _fuse,
    "blend": _blend,
    "decode": _decode,
    "composite": _composite,
    "download": _download,
}


def _network(kind: Any, m: Materials) -> Engine:
    shapes = shapes_of(m.bundle.about, kind, m.size, m.rows or rows_of(m), m.config.device)
    return m.engines.open(m.bundle.network(kind), shapes)
