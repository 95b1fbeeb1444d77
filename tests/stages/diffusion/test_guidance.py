"""Guidance: what the scale means, and residual guidance against the recursion of its paper."""

from functools import partial

import pytest
import torch
from support.polynomial import SHAPE, Polynomial, conditioned, latent

from warpfuse.stages import cpu
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.guidance import assumed, guided
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.diffusion.rows import start
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling, frame_schedule
from warpfuse.stages.diffusion.settings import FuseSettings, Guidance
from warpfuse.stages.diffusion.stream_batch import step_all
from warpfuse.stages.frame import Latent, Stamp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import Level, level_at, levels
from warpfuse.stages.solvers.pair import compose

TABLE = levels()
LEVEL = level_at(TABLE, 700.0)


def pair(seed, x):
    """A pair of x: any x0, and the noise that makes it x."""
    x0 = latent(seed)
    return x0, (x - LEVEL.alpha * x0) / LEVEL.sigma


def test_scale_one_is_the_conditional_pair_bit_for_bit():
    x = latent(0)
    conditional = pair(1, x)
    assert all(a is b for a, b in zip(guided(conditional, pair(2, x), 1.0), conditional, strict=True))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_a_guided_pair_is_still_a_pair_of_its_latent(scale):
    x = latent(0)
    x0, n = guided(pair(1, x), pair(2, x), scale)
    assert torch.allclose(compose(x0, n, LEVEL), x, atol=1e-4)
    assert torch.allclose(n, pair(2, x)[1] + scale * (pair(1, x)[1] - pair(2, x)[1]), atol=1e-4)


def test_what_is_assumed_is_a_pair_of_the_latent():
    x, z = latent(0), latent(1)
    for delta in (0.5, 1.0):
        assert torch.allclose(compose(*assumed(x, z, LEVEL, delta), LEVEL), x, atol=1e-4)
    assert assumed(x, z, LEVEL, 1.0)[0] is z


def test_a_level_that_fixes_no_pair_is_refused():
    with pytest.raises(ValueError, match="delta to 1"):
        assumed(latent(0), latent(1), Level(0.0, 1.0, 999.0), 0.9)
    with pytest.raises(ValueError, match="no unconditional pair"):
        assumed(latent(0), latent(1), Level(1.0, 0.0, 0.0), 1.0)


def walked(mode, solver, weight=0.0):
    """A frame's unconditional noise at every call as we assume it, and as the recursion of Kodaira et al. has it."""
    family = Sampling("epsilon", open_solver(solver), partial(level_at, TABLE), 999.0, 200.0, True)
    fuse = FuseSettings(weight=weight, entry=0, between="reference")
    guidance = Guidance(mode=mode, scale=1.6)
    way = frame_schedule(family, PredictSettings(conditioned(0.3, 0.1), 1.0, 4, fuse, guidance))
    noises = Noises(0, torch.device("cpu"))
    reference = Latent(Stamp(0, 0), latent(7), torch.ones(1, 1, 8, 8))
    row = start(Latent(Stamp(0, 0), latent(0)), way, noises, reference, cpu)
    spoken, unet = [], Polynomial()

    class Listening(Denoise):
        def __call__(self, rows):
            pairs = super().__call__(rows)
            spoken.append(pairs[0])
            return pairs

    ask, ours, theirs = Listening(unet, family), [], []
    stock = noises.slot(0, torch.Size(SHAPE))
    for k, call in enumerate(way.plan):
        x = row.x
        step_all([row], ask, None)
        alpha, sigma = call.level.alpha, call.level.sigma
        ours.append((x - alpha * row.assumed) / sigma)
        if mode == "initialize" and k == 0:
            stock = ours[0]
        theirs.append(stock)
        if call.level_next.sigma > 0:
            denoised = (sigma * stock - sigma * spoken[-1][1]) / alpha
            after = call.level_next
            stock = noises.slot(k + 1, torch.Size(SHAPE)) + after.alpha / after.sigma * denoised
    return ours, theirs


@pytest.mark.parametrize("mode", ["self", "initialize"])
@pytest.mark.parametrize("solver", ["turbo", "lcm"])
def test_without_fusion_it_is_the_recursion_of_stock_noise(mode, solver):
    for ours, theirs in zip(*walked(mode, solver), strict=True):
        assert torch.allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_the_recursion_does_not_see_what_was_fused():
    """The control, and the reason for the closed form."""
    ours, theirs = walked("self", "turbo", weight=0.8)
    assert torch.allclose(ours[0], theirs[0], atol=1e-4)
    assert not torch.allclose(ours[1], theirs[1], atol=0.05)
