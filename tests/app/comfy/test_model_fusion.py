"""Fusion behind ComfyUI's guidance makes its samplers land where an explicit loop with rescaled fusion does."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from support.comfy_denoisers import (
    FRAMES,
    SIGMAS,
    STEPS,
    H,
    W,
    a_motion,
    by_hook,
    denoised,
    hook,
    hook_args,
    noise,
    start,
)

from warpfuse.comfy.latent_motion import at_latents
from warpfuse.comfy.model_fusion import step_of, tell_step
from warpfuse.engine.errors import BadInput
from warpfuse.stages.cpu import resize_flow, warp
from warpfuse.stages.formulas.confidence_mask import reduce_to_latent
from warpfuse.stages.solvers.levels import CLEAN, Level
from warpfuse.stages.solvers.pair import fuse


def chain(x0, motion, weight):
    """Every frame's fused x0, written out."""
    flow = resize_flow(motion["flow"], (H, W))
    trust = reduce_to_latent(motion["trust"], 8, 2.0)
    fused = [x0[:1]]
    for i in range(1, len(x0)):
        w = weight * trust[i : i + 1]
        fused.append(fuse(x0[i : i + 1], None, warp(fused[-1], flow[i : i + 1]), None, w, 0.0, CLEAN))
    return torch.cat(fused)


def explicit(step, flow, motion, weight=0.8):
    """x' = alpha' x0' + sigma' n': the unfused step says the noise, fusion replaces the clean part."""
    x, sigmas = start(flow), SIGMAS[flow]
    for i, (sigma, after) in enumerate(itertools.pairwise(sigmas)):
        x0 = denoised(x, sigma)
        unfused = STEPS[step](x, x0, sigma, after, flow, noise(1, 4, H, W, seed=100 + i))
        alpha = 1 - after if flow else 1.0
        x = alpha * chain(x0, motion, weight) + (unfused - alpha * x0)
    return x


@pytest.mark.parametrize("flow", [False, True], ids=["epsilon", "flow"])
@pytest.mark.parametrize("step", STEPS)
def test_a_first_order_sampler_lands_on_rescaled_fusion(step, flow):
    motion = a_motion()
    expected = explicit(step, flow, motion)
    found = by_hook(step, flow, hook(motion), step)
    assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    naive = by_hook(step, flow, lambda args: chain(args["denoised"], motion, 0.8), step)
    plain = by_hook(step, flow, hook(motion, weight=0.0), step)
    assert (plain - expected).abs().max() > 0.05, "the control: fusion changes something"
    if step != "renoise":  # whose step is D made noisy: there the naive replacement is right
        assert (naive - expected).abs().max() > 0.02, "the control: the naive replacement lands elsewhere"


def test_the_explicit_loop_is_that_of_the_stages():
    """One Euler step with the stages' own `fuse`, the noise the model's: n_ref = n, rho = 1."""
    motion, sigma, after = a_motion(), 6.3, 2.7
    x = start(False)
    x0 = denoised(x, sigma)
    n = (x - x0) / sigma
    trust = reduce_to_latent(motion["trust"], 8, 2.0)
    flow = resize_flow(motion["flow"], (H, W))
    fused, rows = x0[:1], [x0[:1] + after * n[:1]]
    for i in range(1, FRAMES):
        one, ref, w = slice(i, i + 1), warp(fused, flow[i : i + 1]), 0.8 * trust[i : i + 1]
        rows.append(fuse(x0[one], n[one], ref, n[one], w, 1.0, Level(1.0, after, 0.0)))
        fused = fuse(x0[one], None, ref, None, w, 0.0, CLEAN)
    D = hook(motion)(hook_args(x, x0, sigma, SIGMAS[False], False, "euler"))
    assert torch.allclose(STEPS["euler"](x, D, sigma, after, False, None), torch.cat(rows), atol=1e-5)


def test_the_wrong_kind_of_step_lands_elsewhere():
    motion = a_motion()
    expected = explicit("ancestral", True, motion)
    assert (by_hook("ancestral", True, hook(motion), "euler") - expected).abs().max() > 1e-3


@pytest.mark.parametrize("sigma", SIGMAS[False][:-1])
def test_weight_0_and_trust_0_leave_the_model_alone_to_the_bit(sigma):
    motion, x = a_motion(), start(False)
    x0 = denoised(x, sigma)
    args = hook_args(x, x0, sigma, SIGMAS[False], False, "euler")
    assert hook(motion, weight=0.0)(args) is x0
    untrusted = {**motion, "trust": motion["trust"] * 0}
    assert torch.equal(hook(untrusted)(args), x0)
    assert torch.equal(hook(motion)(args)[0], x0[0]) and not torch.equal(hook(motion)(args)[1], x0[1])


def test_outside_its_window_it_does_nothing():
    motion, x, sigmas = a_motion(), start(False), SIGMAS[False]
    changed = []
    for sigma in sigmas[:-1]:
        x0 = denoised(x, sigma)
        args = hook_args(x, x0, sigma, sigmas, False, "euler")
        changed.append(not torch.equal(hook(motion, window=(0.4, 0.9))(args), x0))
    assert changed == [False, True, True, False]  # 14.6 (1 - 0.4) = 8.8 and 14.6 (1 - 0.9) = 1.5


def test_kappa_1_is_for_samplers_that_make_noisy_again():
    motion, x = a_motion(), start(False)
    x0 = denoised(x, 6.3)
    D = hook(motion, kappa="1")(hook_args(x, x0, 6.3, SIGMAS[False], False, "euler"))
    assert torch.allclose(D, chain(x0, motion, 0.8), atol=1e-6)


def test_the_first_frame_as_reference_is_pulled_along_the_whole_way():
    """A constant pan by one cell a frame: frame i was i cells away in frame 0."""
    flow = torch.zeros(FRAMES, 2, 8 * H, 8 * W)
    flow[1:, 0] = -8.0
    trust = torch.ones(FRAMES, 1, 8 * H, 8 * W)
    trust[0] = 0
    x0 = noise(FRAMES, 4, H, W)
    args = hook_args(x0, x0, 6.3, SIGMAS[False], False, "renoise")
    D = hook({"flow": flow, "trust": trust}, weight=1.0, reference="first")(args)
    for i in range(1, FRAMES):
        assert torch.allclose(D[i, :, :, i:], x0[0, :, :, : W - i], atol=1e-5)
    assert torch.equal(D[3, :, :, :2], x0[3, :, :, :2]), "what was outside of frame 0 is not trusted"


def test_with_an_autoencoder_references_are_pulled_as_pictures():
    """A pan by half a cell: cells of a constant picture each, so that only a picture can be pulled by half of one."""
    flow = torch.zeros(2, 2, 8 * H, 8 * W)
    flow[1, 0] = -4.0
    trust = torch.ones(2, 1, 8 * H, 8 * W)
    trust[0] = 0
    x0 = torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(0))

    def decode(latent):
        return torch.nn.functional.interpolate(latent, scale_factor=8, mode="nearest")

    def encode(rgb):
        return torch.nn.functional.avg_pool2d(rgb, 8)

    made = hook({"flow": flow, "trust": trust}, weight=1.0, pictures=lambda model: (decode, encode))
    D = made(hook_args(x0, x0, 6.3, SIGMAS[False], False, "renoise"))
    expected = (x0[0, :, :, 1:] + x0[0, :, :, :-1]) / 2
    assert (D[1, :, :, 1:] - expected).abs().max() < 0.02


def test_another_number_of_frames_is_refused():
    x0 = noise(3, 4, H, W)
    with pytest.raises(BadInput, match="the motion is of 4 frames, the latents are 3"):
        hook(a_motion())(hook_args(x0, x0, 6.3, SIGMAS[False], False))
    video = noise(1, 4, 5, H, W)
    with pytest.raises(BadInput, match="no video model"):
        hook(a_motion())(hook_args(video, video, 6.3, SIGMAS[False], False))


@pytest.mark.parametrize("height, width", [(48, 64), (51, 69), (55, 71)])
def test_motion_is_cut_as_comfyui_cuts_pictures(height, width):
    """At the centre, to whole cells."""
    motion = a_motion(h=height, w=width)
    found = at_latents(motion, FRAMES, (H, W), "previous")
    top, left = (height - 48) // 2, (width - 64) // 2
    cut = motion["flow"][..., top : top + 48, left : left + 64]
    assert torch.equal(found.flow_px, cut) and torch.allclose(found.flow, resize_flow(cut, (H, W)))
    assert found.trust.shape == (FRAMES, 1, H, W)


def test_motion_of_another_scale_is_brought_to_that_of_the_latents():
    flow = torch.zeros(2, 2, 96, 128)
    flow[1, 0], flow[1, 1] = 4.0, -8.0
    found = at_latents({"flow": flow, "trust": torch.ones(2, 1, 96, 128)}, 2, (H, W), "previous")
    assert torch.allclose(found.flow[1, :, 2, 2], torch.tensor([0.25, -0.5]))  # 128 px -> 8 cells
    half = at_latents({"flow": flow[..., ::4, ::4] / 4, "trust": torch.ones(2, 1, 24, 32)}, 2, (12, 16), "previous")
    assert torch.allclose(half.flow[1, :, 2, 2], torch.tensor([0.5, -1.0]))


def sample_euler():
    """Under the name that ComfyUI has."""


def sample_dpmpp_2m():
    """Likewise."""


def test_the_hook_is_told_the_sampler_and_the_user_where_it_is_approximate(caplog):
    told = {}

    class Executor:
        def __init__(self, function, **options):
            self.class_obj = SimpleNamespace(sampler_function=function, extra_options=options)

        def __call__(self, *args):
            told.update(args[2]["model_options"]["transformer_options"])

    args = "guider", "sigmas", {"model_options": {"transformer_options": {}}}
    tell_step(Executor(sample_euler), *args)
    assert told == {"warpfuse_step": ("euler", 1.0)} and not caplog.records
    tell_step(Executor(sample_dpmpp_2m), *args)
    assert "sampler sample_dpmpp_2m is not of first order" in caplog.text
    assert step_of(sample_euler, {"s_churn": 0.5}) == ("euler", 1.0, False)
