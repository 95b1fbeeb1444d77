"""Networks in ComfyUI's convention without weights, motion, and plain versions of k-diffusion's loops."""

import itertools
from types import SimpleNamespace

import torch
from torch.nn.functional import avg_pool2d, interpolate

from warpfuse.comfy.model_fusion import TOLD, FuseModel

FRAMES, H, W = 4, 6, 8
"""Frames of a batch, and cells of their latents; 8 pixels each."""


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def denoised(x, sigma):
    """D(x; sigma): smooth, not linear, and mixing neighbours."""
    blurred = avg_pool2d(x, 3, 1, 1)
    return torch.tanh(2 * blurred / (1 + sigma)) + 0.6 * x / (1 + sigma)


def a_motion(frames=FRAMES, h=8 * H, w=8 * W, seed=3):
    """Smooth flow of some pixels, and smooth trust of all values; 0 for frame 0."""
    coarse = noise(frames, 2, 4, 4, seed=seed)
    flow = 5 * interpolate(coarse, (h, w), mode="bicubic", align_corners=False)
    trust = torch.sigmoid(2 * interpolate(noise(frames, 1, 4, 4, seed=seed + 1), (h, w), mode="bilinear"))
    flow[0], trust[0] = 0, 0
    return {"flow": flow, "trust": trust}


class Sampling:
    """The used part of ComfyUI's model_sampling."""

    def __init__(self, flow):
        self.flow = flow

    def percent_to_sigma(self, percent):
        if percent <= 0:
            return 1.0 if self.flow else 999999999.9
        return 0.0 if percent >= 1 else (1 - percent) * (1.0 if self.flow else 14.6)


def hook_args(x, x0, sigma, sigmas, flow, step=None):
    """The arguments of a hook after classifier-free guidance."""
    told = {"sample_sigmas": torch.tensor(sigmas), **({} if step is None else {TOLD: (step, 1.0)})}
    model = SimpleNamespace(model_sampling=Sampling(flow))
    options = {"transformer_options": told}
    return {"denoised": x0, "input": x, "sigma": torch.full((len(x),), sigma), "model": model, "model_options": options}


def euler(x, D, sigma, after, flow, z):
    return x + (x - D) / sigma * (after - sigma)


def ancestral(x, D, sigma, after, flow, z):
    """DDPM's posterior in this convention: down to s'^2 / s, and noise back up to s'."""
    if after == 0:
        return D
    down = after * after / sigma
    if not flow:
        return x + (x - D) / sigma * (down - sigma) + (after**2 - down**2) ** 0.5 * z
    scale = (1 - after) / (1 - down)  # the clean part is brought back to 1 - s'
    return scale * (x + (x - D) / sigma * (down - sigma)) + (after**2 - (scale * down) ** 2) ** 0.5 * z


def renoise(x, D, sigma, after, flow, z):
    """A step of LCM: the clean latent with new noise."""
    return (1 - after if flow else 1.0) * D + after * z


STEPS = {"euler": euler, "ancestral": ancestral, "renoise": renoise}
SIGMAS = {False: [14.6, 6.3, 2.7, 0.9, 0.0], True: [1.0, 0.8, 0.55, 0.25, 0.0]}


def start(flow, seed=9):
    """A batch at the first sigma."""
    sigma = SIGMAS[flow][0]
    clean = noise(FRAMES, 4, H, W, seed=seed)
    return (1 - sigma if flow else 1.0) * clean + sigma * noise(1, 4, H, W, seed=seed + 1)


def hook(motion, weight=0.8, window=(0.0, 1.0), reference="previous", kappa="auto", pictures=None):
    """`FuseModel` with these stand-ins."""
    return FuseModel(motion, weight, window, reference, kappa, lambda sampling: sampling.flow, pictures)


def by_hook(step, flow, make, told):
    """A complete sampling of ComfyUI, with the hook `make` after guidance."""
    x, sigmas = start(flow), SIGMAS[flow]
    for i, (sigma, after) in enumerate(itertools.pairwise(sigmas)):
        D = make(hook_args(x, denoised(x, sigma), sigma, sigmas, flow, told))
        x = STEPS[step](x, D, sigma, after, flow, noise(1, 4, H, W, seed=100 + i))
    return x
