"""Solvers of warpfuse on ComfyUI's model: without fusion ComfyUI's own samplers, with it the stages' `fuse`."""

import itertools

import pytest
import torch
from support.comfy_denoisers import FRAMES, SIGMAS, STEPS, H, W, a_motion, by_hook, denoised, hook, noise, start

from warpfuse.comfy.sampler import SamplerSettings, solve
from warpfuse.engine.errors import BadInput
from warpfuse.stages.cpu import resize_flow, warp
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.formulas.confidence_mask import reduce_to_latent
from warpfuse.stages.solvers.levels import CLEAN, Level
from warpfuse.stages.solvers.pair import fuse


def solved(solver, flow=False, motion=None, sigmas=None, x=None, seed=5, **settings):
    calls = []
    out = solve(
        denoised,
        start(flow) if x is None else x,
        SIGMAS[flow] if sigmas is None else sigmas,
        SamplerSettings(solver=solver, **settings),
        motion,
        seed,
        flow,
        lambda call, x, x0: calls.append(call),
    )
    return out, calls


def looped(step, flow, seed=5):
    """The sampler of k-diffusion with the fixed noise of each step."""
    x, sigmas, noises = start(flow), SIGMAS[flow], Noises(seed, torch.device("cpu"))
    for i, (sigma, after) in enumerate(itertools.pairwise(sigmas)):
        z = noises.slot(i + 1, x[:1].shape)
        x = STEPS[step](x, denoised(x, sigma), sigma, after, flow, z)
    return x


def heun(x, sigmas):
    """Karras et al. 2022, algorithm 1, in the convention x = x0 + s n."""
    for sigma, after in itertools.pairwise(sigmas):
        d = (x - denoised(x, sigma)) / sigma
        trial = x + (after - sigma) * d
        if after:
            d = (d + (trial - denoised(trial, after)) / after) / 2
        x = x + (after - sigma) * d
    return x


@pytest.mark.parametrize(
    "solver, step, flow",
    [
        ("auto", "euler", False),
        ("auto", "euler", True),
        ("euler", "euler", False),
        ("ddim", "euler", False),
        ("rectified_flow", "euler", True),
        ("euler_ancestral", "ancestral", False),
        ("turbo", "renoise", False),
    ],
)
def test_without_fusion_it_is_comfyuis_sampler(solver, step, flow):
    out, calls = solved(solver, flow)
    assert torch.allclose(out, looped(step, flow), atol=2e-5)
    assert calls == [0, 1, 2, 3]


def test_heun_asks_twice_a_step_and_is_that_of_its_paper():
    out, calls = solved("heun")
    assert torch.allclose(out, heun(start(False), SIGMAS[False]), atol=2e-5) and len(calls) == 7
    assert (out - solved("euler")[0]).abs().max() > 1e-3


@pytest.mark.parametrize("flow", [False, True], ids=["epsilon", "flow"])
def test_it_lands_where_the_hook_makes_comfyuis_euler_land(flow):
    motion = a_motion()
    out, _ = solved("auto", flow, motion)
    assert torch.allclose(out, by_hook("euler", flow, hook(motion), "euler"), atol=2e-5)
    assert (out - solved("auto", flow)[0]).abs().max() > 0.05, "the control: fusion changes something"


@pytest.mark.parametrize("policy, rho", [("model", 1.0), ("slot", 0.0), ("fresh", 0.0)])
def test_a_step_is_fuse_of_the_stages_for_every_noise(policy, rho):
    """The first of two steps, by a partial schedule: what comes out is at sigma 2.7."""
    motion, x = a_motion(), start(False)
    x0 = denoised(x, 14.6)
    n, noises = (x - x0) / 14.6, Noises(5, torch.device("cpu"))
    trust, flow = reduce_to_latent(motion["trust"], 8, 2.0), resize_flow(motion["flow"], (H, W))
    fused, rows = x0[:1], [x0[:1] + 2.7 * n[:1]]
    for i in range(1, FRAMES):
        one, ref = slice(i, i + 1), warp(fused, flow[i : i + 1])
        shape = x[:1].shape
        n_ref = {"model": n[one], "slot": noises.slot(1, shape), "fresh": noises.fresh(i, 1, shape)}[policy]
        rows.append(fuse(x0[one], n[one], ref, n_ref, 0.7 * trust[one], rho, Level(1.0, 2.7, 0.0)))
        fused = fuse(x0[one], None, ref, None, 0.7 * trust[one], 0.0, CLEAN)
    out, _ = solved("euler", motion=motion, sigmas=[14.6, 2.7], noise=policy, exit=0.7)
    assert torch.allclose(out, torch.cat(rows), atol=1e-5)


def test_the_noise_of_a_fused_level_is_that_of_the_level():
    """Independent references: the variance of what was noise stays sigma^2. The plain blend of latents has less."""
    x0 = torch.zeros(2, 4, 64, 64)
    n = noise(2, 4, 64, 64)
    motion = {"flow": torch.zeros(2, 2, 512, 512), "trust": torch.ones(2, 1, 512, 512)}
    settings = SamplerSettings("euler", "fresh", 0.6, 0.6)
    out = solve(lambda x, sigma: x0, 14.6 * n, [14.6, 6.3], settings, motion, 5, False, lambda *_: None)
    assert out[1].std() / 6.3 == pytest.approx(1.0, abs=0.02)
    assert (0.4**2 + 0.6**2) ** 0.5 < 0.75, "the control: the blend"


def test_the_window_and_the_exit_are_apart():
    motion = a_motion()
    only_exit = solved("euler", motion=motion, window=(0.5, 0.0), weight=0.8, exit=0.8)[0]
    plain = solved("euler")[0]
    trust, flow = reduce_to_latent(motion["trust"], 8, 2.0), resize_flow(motion["flow"], (H, W))
    fused = [plain[:1]]
    for i in range(1, FRAMES):
        ref = warp(fused[-1], flow[i : i + 1])
        fused.append(fuse(plain[i : i + 1], None, ref, None, 0.8 * trust[i : i + 1], 0.0, CLEAN))
    assert torch.allclose(only_exit, torch.cat(fused), atol=1e-5)
    assert torch.equal(solved("euler", motion=motion, weight=0.0, exit=0.0)[0], plain)


def test_a_batch_of_one_is_sampled_without_motion():
    x = start(False)[:1]
    assert torch.equal(solved("euler", motion=a_motion(), x=x)[0], solved("euler", x=x)[0])


@pytest.mark.parametrize(
    "solver, flow, text",
    [
        ("euler", True, "solver 'euler' does not fit this model, which is a flow: take rectified_flow"),
        ("rectified_flow", False, "does not fit this model, which is one of epsilon or v: take another"),
    ],
)
def test_a_solver_of_another_kind_of_model_is_refused(solver, flow, text):
    with pytest.raises(BadInput, match=text):
        solved(solver, flow)


def test_nothing_is_sampled_without_sigmas():
    x = start(False)
    assert solved("euler", sigmas=[14.6], x=x)[0] is x
