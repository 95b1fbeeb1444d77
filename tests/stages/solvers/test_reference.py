"""The solvers against the schedulers most checkpoints were made for: the same noises, a seeded random network.

Both sides run the same network on what they would feed it. The reference keeps its tables in float32, whose rounding a
division by a small alpha or sigma multiplies; it is the rule of the step that is compared, so its tables are recomputed
in float64 where it lets itself be told (alphas_cumprod), and ours are rounded to its where not (sigmas).
"""

import importlib
from dataclasses import replace
from functools import partial

import pytest
import torch
from support.driving import drive, normal

from warpfuse.stages.diffusion.schedule import Sampling
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import (
    CLEAN,
    flow_level,
    karras_levels,
    level_at,
    levels,
    variance_exploding,
    zero_terminal,
)

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, under NumPy 2

SHAPE = (1, 4, 8, 8)
STEPS = range(1, 9)
BETAS = {"scaled_linear": (0.00085, 0.012), "linear": (0.00085, 0.012), "cosine": (0.0001, 0.02)}
THEIR_SCHEDULE = {"cosine": "squaredcos_cap_v2"}
THEIR_PREDICTION = {"v": "v_prediction"}
CLOSE = 1e-5


class Net:
    """A fixed random convolution with a bounded answer that also depends on the timestep."""

    def __init__(self):
        self.w = 0.25 * normal(4, 4, 3, 3, seed=7)
        self.told = []

    def __call__(self, x, timestep):
        self.told.append(float(timestep))
        wide = torch.nn.functional.conv2d(x.double(), self.w, padding=1) + 0.001 * float(timestep)
        return torch.tanh(wide)


def reference(name, schedule, prediction="epsilon", **config):
    """Their scheduler, its table found close to ours and then as exact as ours."""
    scheduler_of = getattr(importlib.import_module("diffusers"), name)
    start, end = BETAS[schedule]
    found = scheduler_of(
        num_train_timesteps=1000,
        beta_start=start,
        beta_end=end,
        beta_schedule=THEIR_SCHEDULE.get(schedule, schedule),
        prediction_type=THEIR_PREDICTION.get(prediction, prediction),
        **config,
    )
    table = levels(schedule, start, end)
    table = zero_terminal(table) if config.get("rescale_betas_zero_snr") else table
    theirs, ours = found.alphas_cumprod.double(), torch.tensor([level.alpha**2 for level in table], dtype=torch.float64)
    # float32 betas up to 0.999 leave 1 - beta 6e-5 off; one schedule's last entry is a stand-in for zero
    assert torch.allclose(theirs, ours, rtol=1e-4, atol=1e-7)
    found.alphas_cumprod = ours
    if not config.get("set_alpha_to_one", True):
        found.final_alpha_cumprod = ours[0]
    return found


def their_end(scheduler, own_steps, x, noises, monkeypatch, sigmas=None, steps=None, **options):
    """(end, timesteps told) of the reference's own loop, its random numbers replaced by `noises`.

    steps  only the last so many of its own, as where there is a picture to start from
    """
    module, draws = importlib.import_module(type(scheduler).__module__), iter(noises)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(draws))
    scheduler.set_timesteps(**({"sigmas": sigmas} if sigmas else {"num_inference_steps": own_steps}))
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = scheduler.sigmas.double()  # their differences, too, would be rounded
    net, skipped = Net(), 0 if steps is None else (own_steps - steps) * scheduler.order
    if skipped and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    for t in scheduler.timesteps[skipped:]:
        fed = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(net(fed, t), t, x, return_dict=False, **options)[0]
    return x, net.told


def our_end(solver, way, x, noises, prediction, end=CLEAN):
    net = Net()
    x = drive(solver.plan(way, end), x, lambda x, level: net(x, level.timestep), noises, prediction)
    return x, net.told


def agree(ours, theirs, close=CLOSE):
    (x, told), (x_ref, told_ref) = ours, theirs
    assert told == pytest.approx(told_ref, abs=2e-3), "the network is told the same timesteps"
    error = float((x - x_ref).abs().max() / x_ref.abs().max())
    assert error < close


def start(level):
    gain = (level.alpha**2 + level.sigma**2) ** 0.5
    return gain * normal(*SHAPE, seed=1), [normal(*SHAPE, seed=2 + k) for k in range(8)]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("schedule", BETAS)
def test_ddim(schedule, prediction, eta, monkeypatch):
    table = levels(schedule, *BETAS[schedule])
    for steps in STEPS:
        way = [level_at(table, t) for t in Spacing("leading", offset=1).timesteps(steps)]
        x, noises = start(way[0])
        scheduler = reference(
            "DDIMScheduler", schedule, prediction, clip_sample=False, steps_offset=1, set_alpha_to_one=False
        )
        # this configuration ends at the lowest level of the table, where the reference draws once more
        theirs = their_end(scheduler, steps, x, noises, monkeypatch, eta=eta)
        agree(our_end(open_solver("ddim", eta=eta), way, x, noises, prediction, table[0]), theirs)


@pytest.mark.parametrize("prediction", ["v", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8])  # where T / steps is whole: else its steps do not meet
def test_ddim_from_pure_noise(prediction, steps, monkeypatch):
    table = zero_terminal(levels())
    way = [level_at(table, t) for t in Spacing("trailing").timesteps(steps)]
    x, noises = start(way[0])
    scheduler = reference(
        "DDIMScheduler",
        "scaled_linear",
        prediction,
        clip_sample=False,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    agree(our_end(open_solver("ddim"), way, x, noises, prediction), their_end(scheduler, steps, x, noises, monkeypatch))


def sigma_way(table, spacing, steps, karras):
    timesteps = Spacing(spacing).timesteps(steps)
    if karras:
        return karras_levels(table, steps, timesteps[0], timesteps[-1])
    return [variance_exploding(level_at(table, t)) for t in timesteps]


def in_their_precision(scheduler, way):
    """Our levels rounded as theirs, which they are close to: x carries that rounding times sigma_max."""
    scheduler.set_timesteps(len(way))
    sigmas = scheduler.sigmas[:-1].unique_consecutive().double().tolist()
    timesteps = scheduler.timesteps.unique_consecutive().double().tolist()
    assert sigmas == pytest.approx([level.sigma for level in way], rel=CLOSE)
    assert timesteps == pytest.approx([level.timestep for level in way], abs=2e-3)
    return [replace(level, sigma=s, timestep=t) for level, s, t in zip(way, sigmas, timesteps, strict=True)]


SIGMA_SPACE = [
    (name, theirs, prediction, karras)
    for name, theirs, has_sample, has_karras in (
        ("euler", "EulerDiscreteScheduler", True, True),
        ("euler_ancestral", "EulerAncestralDiscreteScheduler", False, False),
        ("heun", "HeunDiscreteScheduler", True, True),
    )
    for prediction in ("epsilon", "v", *(("sample",) if has_sample else ()))
    for karras in ((False, True) if has_karras else (False,))
]


@pytest.mark.parametrize("name, theirs, prediction, karras", SIGMA_SPACE)
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("schedule", ["scaled_linear", "linear"])
def test_sigma_space(schedule, spacing, name, theirs, prediction, karras, monkeypatch):
    table = levels(schedule, *BETAS[schedule])
    for steps in STEPS:
        way = sigma_way(table, spacing, steps, karras)
        x, noises = start(way[0])
        config = {"use_karras_sigmas": True} if karras else {}
        scheduler = reference(theirs, schedule, prediction, timestep_spacing=spacing, **config)
        way = in_their_precision(scheduler, way)
        found = their_end(scheduler, steps, x, noises, monkeypatch)
        agree(our_end(open_solver(name), way, x, noises, prediction), found)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("schedule", BETAS)
def test_lcm(schedule, prediction, monkeypatch):
    table = levels(schedule, *BETAS[schedule])
    for steps in STEPS:
        scheduler = reference("LCMScheduler", schedule, prediction)
        scheduler.set_timesteps(steps)
        way = [level_at(table, float(t)) for t in scheduler.timesteps]
        x, noises = start(way[0])
        theirs = their_end(scheduler, steps, x, noises, monkeypatch)
        agree(our_end(open_solver("lcm"), way, x, noises, prediction), theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_rectified_flow(shift, monkeypatch):
    scheduler_of = importlib.import_module("diffusers").FlowMatchEulerDiscreteScheduler
    for steps in STEPS:
        scheduler = scheduler_of(num_train_timesteps=1000, shift=shift)
        # evenly from 1 down to 1 / steps, as the pipelines of such models ask for
        sigmas = [(steps - k) / steps for k in range(steps)]
        way = [flow_level(1000 * sigma, shift=shift) for sigma in sigmas]
        x, noises = start(way[0])
        theirs = their_end(scheduler, steps, x, noises, monkeypatch, sigmas=sigmas)
        agree(our_end(open_solver("rectified_flow"), way, x, noises, "flow"), theirs)


def test_turbo_is_one_euler_step_from_the_top(monkeypatch):
    (level,) = (level_at(levels(), t) for t in Spacing("trailing").timesteps(1))
    x, noises = start(level)
    scheduler = reference("EulerDiscreteScheduler", "scaled_linear", timestep_spacing="trailing")
    theirs = their_end(scheduler, 1, x / level.alpha, noises, monkeypatch)
    agree(our_end(open_solver("turbo"), [level], x, noises, "epsilon"), theirs)


SPACED = [("ddim", "DDIMScheduler", False)]
SPACED += [(name, theirs, karras) for name, theirs, prediction, karras in SIGMA_SPACE if prediction == "v"]
PARTS = [(steps, own_steps) for steps in range(1, 5) for own_steps in (1, 2, 4, 5, 8, 10, 20) if steps <= own_steps]


@pytest.mark.parametrize("name, theirs, karras", SPACED)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_part_of_the_way(spacing, name, theirs, karras, monkeypatch):
    """At strength K / N a frame's K calls are the last of a pipeline's N steps: levels, timesteps and result."""
    if (name, spacing) == ("ddim", "linspace"):
        pytest.skip("the reference steps by T // N, which does not meet its timesteps there")
    rule = Spacing(spacing, offset=int(spacing == "leading"))
    table, solver = levels(), open_solver(name)
    config = {"use_karras_sigmas": True} if karras else {"clip_sample": False} if name == "ddim" else {}
    level_of = partial(level_at, table) if name == "ddim" else lambda t: variance_exploding(level_at(table, t))
    sampling = Sampling("v", solver, level_of, 999.0, 0.0, False, table if karras else None, rule)
    for steps, own_steps in PARTS:
        scheduler = reference(
            theirs, "scaled_linear", "v", timestep_spacing=spacing, steps_offset=rule.offset, **config
        )
        way = list(sampling.levels(steps / own_steps, steps))
        if name != "ddim":
            scheduler.set_timesteps(own_steps)
            sigmas = scheduler.sigmas[:-1].unique_consecutive().double()[-steps:].tolist()
            # between whole timesteps they interpolate sigma, we its logarithm
            assert [level.sigma for level in way] == pytest.approx(sigmas, rel=1e-4 if spacing == "linspace" else CLOSE)
            way = [replace(level, sigma=sigma) for level, sigma in zip(way, sigmas, strict=True)]
        x, noises = start(way[0])
        found = their_end(scheduler, own_steps, x, noises, monkeypatch, steps=steps)
        agree(our_end(solver, way, x, noises, "v"), found)


def test_control_another_solver_does_not_agree(monkeypatch):
    way = sigma_way(levels(), "trailing", 4, False)
    x, noises = start(way[0])
    theirs = their_end(
        reference("HeunDiscreteScheduler", "scaled_linear", timestep_spacing="trailing"), 4, x, noises, monkeypatch
    )
    ours = our_end(open_solver("euler"), way, x, noises, "epsilon")
    assert float((ours[0] - theirs[0]).abs().max() / theirs[0].abs().max()) > 100 * CLOSE
