"""What a bundle says of sampling, as the stages take it, and how many network calls and rows follow from it."""

from collections.abc import Callable
from functools import partial

from warpfuse.engine.bundle import Bundle
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.stages.diffusion.schedule import Sampling
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import flow_level, level_at, levels, variance_exploding, zero_terminal
from warpfuse.stages.solvers.pair import CLEAN, Level


def sampling_of(bundle: Bundle) -> Sampling:
    """How a bundle samples: its solver, levels and spacing."""
    about = bundle.about
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
        spacing=_spacing(bundle),
        end=CLEAN if steps.end == "clean" else level_of[solver.space](0.0),
    )


def _spacing(bundle: Bundle) -> Spacing | None:
    steps = bundle.about.steps
    if steps.spacing == "even":
        return None
    return Spacing(steps.spacing, bundle.about.levels.train_timesteps, steps.offset, steps.original_steps)


def calls_of(config: GraphConfig, bundle: Bundle) -> int:
    """Network calls of a frame: its steps, or more where a solver asks twice a step."""
    return sampling_of(bundle).calls(config.steps)


def rows_of(config: GraphConfig, bundle: Bundle) -> int:
    """Rows of a network call: one, or those of a stream batch; twice as many where guidance asks about each twice."""
    options = config.stages.predict
    return (calls_of(config, bundle) if options.stream else 1) * (2 if options.guidance == "full" else 1)


def idle_steps(config: GraphConfig, bundle: Bundle) -> str | None:
    """What to say where the steps asked for leave the picture as it is, with the remedy; None where they do not."""
    spacing = _spacing(bundle)
    if config.steps > 1 or spacing is None or not spacing.one_step_is_idle:
        return None
    return (
        f"steps 1: the sampler of this bundle ({spacing.name}) puts its one step where next to no noise is, so the"
        " picture stays the source. Use --steps 2 or more"
    )
