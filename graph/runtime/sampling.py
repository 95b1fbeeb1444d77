"""How many network calls and rows follow from a configuration and what its bundle says of sampling."""

from warpfuse.engine.bundle import Bundle
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.stages.diffusion.sampling import sampling_of, spacing_of


def calls_of(config: GraphConfig, bundle: Bundle) -> int:
    """Network calls of a frame: its steps, or more where a solver asks twice a step."""
    return sampling_of(bundle).calls(config.steps)


def rows_of(config: GraphConfig, bundle: Bundle) -> int:
    """Rows of a network call: one, or those of a stream batch; twice as many where guidance asks about each twice."""
    options = config.stages.predict
    return (calls_of(config, bundle) if options.stream else 1) * (2 if options.guidance == "full" else 1)


def idle_steps(config: GraphConfig, bundle: Bundle) -> str | None:
    """What to say where the steps asked for leave the picture as it is, with the remedy; None where they do not."""
    spacing = spacing_of(bundle)
    if config.steps > 1 or spacing is None or not spacing.one_step_is_idle:
        return None
    return (
        f"steps 1: the sampler of this bundle ({spacing.name}) puts its one step where next to no noise is, so the"
        " picture stays the source. Use --steps 2 or more"
    )
