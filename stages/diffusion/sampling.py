"""The sampling of a bundle, made from its description."""

from collections.abc import Callable
from functools import partial

from warpfuse.engine.bundle import Bundle
from warpfuse.stages.diffusion.schedule import Sampling
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import CLEAN, Level, flow_level, level_at, levels, variance_exploding, zero_terminal


def sampling_of(bundle: Bundle) -> Sampling:
    """The sampling of a bundle: solver, levels and spacing."""
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
        spacing=spacing_of(bundle),
        controls=about.controls,
        end=CLEAN if steps.end == "clean" else level_of[solver.space](0.0),
    )


def spacing_of(bundle: Bundle) -> Spacing | None:
    """The spacing of a bundle's timesteps; None: even."""
    steps = bundle.about.steps
    if steps.spacing == "even":
        return None
    return Spacing(steps.spacing, bundle.about.levels.train_timesteps, steps.offset, steps.original_steps)
