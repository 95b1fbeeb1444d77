"""A pipeline of diffusers with warpfuse's noises, and the picture for both."""

import torch
from diffusers.models.autoencoders import vae

from warpfuse.stages.diffusion.noise import Noises


def draw_ours(pipe, seed, steps, size, patch):
    """The next call of `pipe` draws the noises of our seed, for so many steps at (width, height), and encodes to the
    mode."""
    noises, shape = Noises(seed, torch.device("cpu")), torch.Size((1, 4, size[1] // 8, size[0] // 8))
    draws = iter([noises.slot(step, shape) for step in range(steps + 1)])
    for module in (type(pipe).__module__, type(pipe.scheduler).__module__):
        patch.setattr(f"{module}.randn_tensor", lambda *_, **__: next(draws), raising=False)
    patch.setattr(vae.DiagonalGaussianDistribution, "sample", lambda posterior, generator=None: posterior.mode())


def picture(seed, size):
    """uint8 [h, w, 3] of (width, height): smooth, with a little grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 6, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, size[::-1], mode="bicubic")
    scene += 0.05 * torch.randn(scene.shape, generator=generator)
    return (scene[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
