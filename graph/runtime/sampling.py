"""Number of network calls and rows for a configuration and its bundle's sampling."""

from warpfuse.engine.bundle import Bundle
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.stages.diffusion.sampling import sampling_of, spacing_of


def calls_of(config: GraphConfig, bundle: Bundle) -> int:
    """UNet calls for each frame: the number of steps, or more with a solver that calls several times a step."""
    return sampling_of(bundle).calls(config.steps)


def rows_of(config: GraphConfig, bundle: Bundle) -> int:
    """Rows of a UNet call: one, or a row for each call with a stream batch; twice as many with full guidance."""
    options = config.stages.predict
    return (calls_of(config, bundle) if options.stream else 1) * (2 if options.guidance == "full" else 1)


def idle_steps(config: GraphConfig, bundle: Bundle) -> str | None:
    """A warning if the number of steps leaves the picture unchanged, with the remedy; None if it does not."""
    spacing = spacing_of(bundle)
    if config.steps > 1 or spacing is None or not spacing.one_step_is_idle:
        return None
    return (
        f"steps 1: the sampler of this bundle ({spacing.name}) puts its one step where next to no noise is, so the"
        " picture stays the source. Use --steps 2 or more"
    )
