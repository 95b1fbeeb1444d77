"""Open the stages of a plan."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from warpfuse.engine.bundle import load_flow_bundle
from warpfuse.engine.contract import Engine
from warpfuse.engine.feed import Shapes
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import NodePlan
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.engines import flow_shapes, shapes_of
from warpfuse.graph.runtime.sampling import sampling_of
from warpfuse.stages.diffusion.attention import CrossFrame, check_attention, check_memory
from warpfuse.stages.diffusion.composite import Composite, CompositeSettings
from warpfuse.stages.diffusion.decode import Decode
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.encode import Encode
from warpfuse.stages.diffusion.fuse import Blend, Fuse
from warpfuse.stages.diffusion.loras import check_input
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.prompts import Prompts
from warpfuse.stages.diffusion.reference_warp import PullLatents, PullPictures
from warpfuse.stages.diffusion.schedule import PredictSettings
from warpfuse.stages.download import Download
from warpfuse.stages.motion.compose_motion import ComposeMotion
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.network_flow import FlowNetwork
from warpfuse.stages.motion.warp import Warp
from warpfuse.stages.stage import Stage
from warpfuse.stages.upload import Upload

DIS = "dis"  # the flow that needs no bundle
_FLOWS = {"embedded": "embedded-flow"}  # what the bundles of the package are called behind --flow


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


def open_stage(node: NodePlan, context: RunContext) -> Stage:
    """Build the stage of a node; those with a network open it. Raises BadInput."""
    if node.kind == "predict":
        return _predict(context, node.inputs)
    return _BUILDERS[node.kind](context)


def _upload(m: RunContext) -> Stage:
    return Upload(m.size, m.config.device)


def _encode(m: RunContext) -> Stage:
    return Encode(_network("encoder", m), m.bundle.about.latent.scale)


def _flow(m: RunContext) -> Stage:
    if m.config.flow == DIS:
        return Flow(m.config.stages.flow, m.config.device)
    return FlowNetwork(m.engines.open(*flow_network(m)), m.config.stages.flow.trust)


def flow_network(m: RunContext) -> tuple[Path, Shapes | None]:
    """The network that gives the flow, and the shapes it is opened for. Raises BundleError."""
    bundle = load_flow_bundle(_FLOWS.get(m.config.flow, m.config.flow))
    return bundle.network(), flow_shapes(bundle.about, m.size, m.config.stages.flow.long_side)


def _warp(m: RunContext) -> Stage:
    return Warp(m.config.stages.warp, m.bundle.about.latent.downscale, m.config.device)


def _compose_motion(m: RunContext) -> Stage:
    return ComposeMotion(m.calls, m.config.device)


def _predict(m: RunContext, inputs: tuple[str, ...]) -> Stage:
    sampling, unet = sampling_of(m.bundle), _network("unet", m)
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


def _attention(m: RunContext, unet: Engine) -> CrossFrame | None:
    about = m.bundle.about.attention
    if about is None:
        return None
    dtype = next(spec.dtype for spec in unet.inputs if spec.name == "past")
    return CrossFrame(about, getattr(torch, dtype), torch.device(m.config.device))


def _pull(m: RunContext) -> PullLatents | PullPictures | None:
    match m.config.stages.fuse.between:
        case "latent":
            return PullLatents(m.config.device)
        case "picture":
            return PullPictures(_network("decoder", m), _network("encoder", m), m.bundle.about.latent.scale)
        case _:
            return None


def _fuse(m: RunContext) -> Stage:
    return Fuse(m.config.stages.fuse, m.config.device)


def _blend(m: RunContext) -> Stage:
    return Blend(m.config.stages.fuse, m.config.device)


def _decode(m: RunContext) -> Stage:
    return Decode(_network("decoder", m), m.bundle.about.latent.scale)


def _composite(m: RunContext) -> Stage:
    return Composite(_network("lines", m), composite_settings(m.config, m.prompts))


def _download(m: RunContext) -> Stage:
    return Download(m.config.device)


_BUILDERS: dict[str, Callable[[RunContext], Stage]] = {
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


def _network(kind: Any, m: RunContext) -> Engine:
    shapes = shapes_of(m.bundle.about, kind, m.size, m.rows or m.rows_alone, m.config.device)
    return m.engines.open(m.bundle.network(kind), shapes)
