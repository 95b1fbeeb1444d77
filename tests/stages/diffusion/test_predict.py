"""Sampling with stand-in networks: what the UNet is told, and what entry fusion feeds it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.polynomial import conditioned, specs

from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import W_MAX, FuseSettings, Guidance, MomentLockSettings
from warpfuse.stages.diffusion.spacing import Spacing
from warpfuse.stages.frame import Frame, Latent, Stamp
from warpfuse.stages.solvers import SolverError, open_solver
from warpfuse.stages.solvers.levels import Level, level_at, levels, variance_exploding

SHAPE = (1, 4, 8, 8)
UNLOCKED = MomentLockSettings(entry=False)
SAMPLING = Sampling("sample", open_solver("turbo"), partial(level_at, levels()), 900.0, 100.0, True)


class Watching:
    """A UNet that remembers what it was fed and predicts `answer`."""

    inputs = specs()

    def __init__(self, answer=None):
        self.fed, self.answer, self.closed = [], answer, False

    def __call__(self, inputs):
        self.fed.append({name: tensor.clone() for name, tensor in inputs.items()})
        return {"output": inputs["source"] * 0.5 if self.answer is None else self.answer}

    def close(self):
        self.closed = True


def settings(**changes):
    style = changes.pop("style", (1.0, 0.0))
    return PredictSettings(
        **{"conditioning": conditioned(*style), "strength": 1.0, "steps": 1, "fuse": FuseSettings(), **changes}
    )


def frame(seed=0, **tensors):
    latent = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return Latent(Stamp(0, 0), latent, **tensors)


def made(unet, sampling=SAMPLING, seed=0, **changes):
    return Predict(Denoise(unet, sampling), sampling, settings(**changes), seed, "cpu")


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_unet_runs_once_a_step_at_falling_levels(steps):
    unet = Watching()
    made(unet, steps=steps)(frame())
    alphas = [fed["level"][0, 0].item() for fed in unet.fed]
    assert len(alphas) == steps and alphas == sorted(alphas)
    assert all(torch.allclose((fed["level"] ** 2).sum(), torch.tensor(1.0)) for fed in unet.fed)


def test_nothing_is_fused_after_the_last_call_though_its_level_has_noise():
    """Fusion between steps ends with the steps: what is shown is fused once, at the exit."""
    table, shown = levels(), {}
    spacing = Spacing("leading", offset=1)
    to_lowest = replace(SAMPLING, solver=open_solver("ddim"), spacing=spacing, end=table[0])
    for between in ("off", "reference"):
        fuse = FuseSettings(weight=0.9, entry=0, between=between)
        reference = Latent(Stamp(0, 0), torch.ones(SHAPE), torch.ones(1, 1, 8, 8))
        for steps in (1, 2):
            predict = made(Watching(torch.zeros(SHAPE)), to_lowest, steps=steps, fuse=fuse)
            shown[between, steps] = predict(frame(), reference).z
    assert torch.equal(shown["off", 1], shown["reference", 1])
    assert not torch.equal(shown["off", 2], shown["reference", 2]), "the control: there it is between two"


def test_the_start_is_the_noised_source_and_the_noise_never_changes():
    unet = Watching()
    predict, source = made(unet), frame()
    predict(source)
    predict(source)
    assert torch.equal(unet.fed[0]["x"], unet.fed[1]["x"])
    alpha, sigma = unet.fed[0]["level"][0]
    noise = (unet.fed[0]["x"] - alpha * source.z) / sigma
    assert abs(noise.std().item() - 1) < 0.2
    other = Watching()
    made(other, seed=1)(source)
    assert not torch.equal(other.fed[0]["x"], unet.fed[0]["x"])


def test_a_later_step_starts_from_the_x0_before_it():
    unet = Watching(answer=torch.full(SHAPE, 7.0))
    made(unet, steps=2)(frame())
    alpha, sigma = unet.fed[1]["level"][0]
    noise = (unet.fed[1]["x"] - alpha * 7.0) / sigma
    assert abs(noise.mean().item()) < 0.3 and abs(noise.std().item() - 1) < 0.2


def test_entry_fusion_moves_the_start_towards_the_reference_and_keeps_the_noise():
    plain, fused, trust = Watching(), Watching(), torch.ones(1, 1, 8, 8)
    trust[..., :4] = 0
    source, reference = frame(0), frame(1, trust=trust)
    made(plain)(source, Frame(Stamp(0, 0)))
    made(fused, fuse=FuseSettings(weight=0.5, anchor=UNLOCKED))(source, reference)
    alpha = plain.fed[0]["level"][0, 0]
    moved = fused.fed[0]["x"] - plain.fed[0]["x"]
    assert torch.equal(fused.fed[0]["x"][..., :4], plain.fed[0]["x"][..., :4]), "no trust: bit for bit unfused"
    expected = alpha * 0.5 * (reference.z - source.z)
    assert torch.allclose(moved[..., 4:], expected[..., 4:], atol=1e-5)
    assert torch.equal(fused.fed[0]["source"], source.z), "the network is told what the camera saw"


def test_fusion_between_steps_moves_the_second_start_and_keeps_its_noise():
    source, reference = frame(0), frame(1, trust=torch.ones(1, 1, 8, 8))
    plain, fused = Watching(answer=torch.zeros(SHAPE)), Watching(answer=torch.zeros(SHAPE))
    made(plain, steps=2, fuse=FuseSettings(weight=0.5))(source, reference)
    made(fused, steps=2, fuse=FuseSettings(weight=0.5, between="reference"))(source, reference)
    alpha = plain.fed[1]["level"][0, 0]
    assert torch.equal(plain.fed[0]["x"], fused.fed[0]["x"])
    moved = fused.fed[1]["x"] - plain.fed[1]["x"]
    assert torch.allclose(moved, alpha * 0.5 * reference.z, atol=1e-5)


@pytest.mark.parametrize("name, calls", [("ddim", 3), ("lcm", 3), ("euler", 3), ("euler_ancestral", 3), ("heun", 5)])
def test_every_solver_of_betas_runs_and_a_right_network_gives_its_x0(name, calls):
    """A network that knows x0 is agreed with by every solver, whatever the path."""
    solver = open_solver(name)
    level_of = SAMPLING.level_of if solver.space == "vp" else lambda t: variance_exploding(SAMPLING.level_of(t))
    unet = Watching(answer=torch.full(SHAPE, 0.3))
    out = made(unet, replace(SAMPLING, solver=solver, level_of=level_of), steps=3)(frame()).z
    assert len(unet.fed) == calls
    assert torch.allclose(out, torch.full(SHAPE, 0.3), atol=1e-3)
    for fed in unet.fed:
        assert (fed["level"] ** 2).sum().item() == pytest.approx(1), "the network is told its own kind of level"
        assert fed["x"].std().item() < 2, "and fed at its own scale"


def test_the_weight_is_held_below_one():
    unet, source, reference = Watching(), frame(0), frame(1, trust=torch.ones(1, 1, 8, 8))
    made(unet, fuse=FuseSettings(weight=1.0, anchor=UNLOCKED))(source, reference)
    alone = Watching()
    made(alone)(source)
    alpha = unet.fed[0]["level"][0, 0]
    moved = unet.fed[0]["x"] - alone.fed[0]["x"]
    assert torch.allclose(moved, alpha * W_MAX * (reference.z - source.z), atol=1e-5)


def test_entry_fusion_can_be_switched_off():
    unet, alone = Watching(), Watching()
    made(unet, fuse=FuseSettings(entry=0))(frame(0), frame(1, trust=torch.ones(1, 1, 8, 8)))
    made(alone)(frame(0))
    assert torch.equal(unet.fed[0]["x"], alone.fed[0]["x"])


@pytest.mark.parametrize("scales", [True, False])
def test_strength_scales_the_style_or_lowers_the_first_level(scales):
    unet = Watching()
    sampling = replace(SAMPLING, strength_scales_style=scales)
    made(unet, sampling, strength=0.5)(frame())
    full = Watching()
    made(full, sampling)(frame())
    same_level = torch.equal(unet.fed[0]["level"], full.fed[0]["level"])
    assert same_level == scales
    assert unet.fed[0]["style"][0, 0].item() == (0.5 if scales else 1.0)


def test_an_update_changes_steps_and_style():
    unet = Watching()
    predict = made(unet)
    predict.update(settings(steps=3, style=(0.0, 1.0)))
    predict(frame())
    assert len(unet.fed) == 3 and unet.fed[0]["style"].tolist() == [[0.0, 1.0]]


def test_the_result_is_not_the_engines_memory():
    answer = torch.ones(SHAPE)
    out = made(Watching(answer=answer))(frame()).z
    answer.zero_()
    assert out.eq(1).all()


def test_it_closes_its_engine():
    unet = Watching()
    made(unet).close()
    assert unet.closed


def test_a_window_of_timesteps_says_where_entry_and_between_may_fuse():
    source, reference = frame(0), frame(1, trust=torch.ones(1, 1, 8, 8))

    def fed(window):
        unet = Watching(answer=torch.zeros(SHAPE))
        fuse = FuseSettings(weight=0.5, between="reference", window=window)
        made(unet, steps=2, fuse=fuse)(source, reference)  # asked at timesteps 900 and 500
        return [call["x"] for call in unet.fed]

    plain, everywhere = fed((0, 0)), fed((0, 1000))
    top, bottom = fed((850, 1000)), fed((400, 600))
    assert not torch.equal(everywhere[0], plain[0]) and not torch.equal(everywhere[1], plain[1])
    assert torch.equal(top[0], everywhere[0]) and torch.equal(top[1], everywhere[1]), "x0 of 900 is fused at 900"
    assert torch.equal(bottom[0], plain[0]) and torch.equal(bottom[1], plain[1]), "after 500 no noise is left"


def test_residual_guidance_that_has_no_answer_is_refused_when_it_is_set():
    zero_terminal = replace(SAMPLING, level_of=lambda t: Level(0.0, 1.0, t) if t > 800 else level_at(levels(), t))
    guidance = Guidance(mode="self", scale=2.0, delta=0.9)
    with pytest.raises(SolverError, match="guidance_delta to 1"):
        made(Watching(), zero_terminal, guidance=guidance)
