"""Open the stages of a plan."""

from pathlib import Path

from warpfuse.engine.bundle import Bundle, load_flow_bundle, load_map_bundle
from warpfuse.engine.bundle_file import NetworkName
from warpfuse.engine.contract import Engine
from warpfuse.engine.feed import Shapes
from warpfuse.graph.plan.config import DIS, FLOW_BUNDLES, GraphConfig
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.engines import flow_shapes, map_shapes, shapes_of
from warpfuse.graph.runtime.stage_runner import SettingsOf
from warpfuse.stages import stage_module
from warpfuse.stages.controls.settings import control_of
from warpfuse.stages.diffusion.prompts import Prompts, on_the_way
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.stage import Stage

__all__ = ["DIS", "flow_network", "open_stage", "settings_of"]


def settings_of(kind: str, prompts: Prompts, stage: str = "") -> SettingsOf | None:
    """A function from a configuration to the settings of a stage of this kind; None for a stage without settings.

    stage  name of the stage
    """
    module, control = stage_module(kind), control_of(stage)
    if control is not None:
        return lambda config, _: config.controls[control]
    if hasattr(module, "settings_of"):
        return lambda config, interim: module.settings_of(config, prompts=on_the_way(prompts, interim))
    return (lambda config, _: config.stages.added[kind]) if hasattr(module, "Settings") else None


def open_stage(kind: str, context: RunContext, stage: str = "") -> Stage:
    """Open a stage, with its networks. stage: its name; "" is its kind. Raises BadInput."""
    opened: Stage = stage_module(kind).open(_Opening(context, stage or kind))
    return opened


def flow_network(context: RunContext) -> tuple[Path, Shapes | None]:
    """The file of the flow network, and the input shapes it is opened for. Raises BundleError."""
    flow, long_side = context.config.flow, context.config.stages.flow.long_side
    bundle = load_flow_bundle(FLOW_BUNDLES.get(flow, flow))
    return bundle.network(), flow_shapes(bundle.about, context.size, long_side)


class _Opening:
    """Implements `stages.stage.Opening`."""

    def __init__(self, context: RunContext, stage: str) -> None:
        self._context = context
        self.stage = stage
        self.config: GraphConfig = context.config
        self.size: tuple[int, int] = context.size
        self.framing: Framing = context.framing
        self.device: str = context.config.device
        self.bundle: Bundle = context.bundle
        self.calls: int = context.calls
        self.prompts: Prompts = context.prompts

    def network(self, kind: NetworkName) -> Engine:
        """Open a network of the bundle."""
        context = self._context
        shapes = shapes_of(self.bundle.about, kind, self.size, context.rows or context.rows_alone, self.device)
        return context.engines.open(self.bundle.network(kind), shapes)

    def flow_network(self) -> Engine:
        """Open the flow network."""
        return self._context.engines.open(*flow_network(self._context))

    def map_network(self, name: str) -> Engine:
        """Open the network of a bundle of kind map."""
        bundle = load_map_bundle(name)
        return self._context.engines.open(bundle.network(), map_shapes(bundle.about, self.size))

    def say(self, line: str) -> None:
        """To who is told of the run."""
        self._context.say(line)
