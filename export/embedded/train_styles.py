"""First lessons of the UNet: what each style looks like, from latents alone.

No picture is decoded and no past is met; that is left to `train_unet.py`. So a step is cheap and many crops are seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import checkpoint
from .autoencoder import Decoder, Encoder
from .latents import encoded, latent_pairs
from .levels import alphas_and_sigmas, random_levels
from .plates import Plate
from .schedule import Length, learning_rate
from .unet import UNet

CROP = 16  # latent cells, 128 pixels


def train(
    plates: Sequence[Plate],
    encoder: Encoder,
    decoder: Decoder,
    length: Length,
    seed: int,
    keep_at: Path,
    say: Callable[[str], None],
    batch: int = 16,
    peak: float = 1.2e-3,
) -> UNet:
    """Train, or take up the training kept at `keep_at`; returns the average of the weights."""
    torch.manual_seed(seed)
    unet = checkpoint.channels_last(UNet(plates[0].vectors.shape[1]))
    optimiser = torch.optim.AdamW(unet.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    average = checkpoint.average_of(unet)
    parts = {"unet": unet, "optimiser": optimiser, "average": average}
    step, before = checkpoint.load(keep_at, parts)
    cached = encoded(plates, encoder.eval())
    table, weight = alphas_and_sigmas(), importance(decoder)
    started = time.monotonic()
    while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
        rng = np.random.default_rng([seed, 4, step])
        torch.manual_seed(seed * 1_000_003 + 700_001 + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, peak)
        source, target, style = latent_pairs(cached, batch, CROP, rng)
        level = random_levels(table, batch)
        x = _entry(source, target, level)
        difference = weight * (unet(x, source, level, style) - target)
        loss = difference.abs().mean() + 0.1 * difference.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        checkpoint.update_average(average, unet, step)
        step += 1
        if step % 100 == 0 or step <= 2:
            say(f"styles step {step} seconds {before + time.monotonic() - started:.0f} loss {loss:.4f}")
        if step % 500 == 0:
            checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    return average


def importance(decoder: Decoder) -> Tensor:
    """[1,16,1,1], mean 1: the root of what a unit of each latent channel does to the picture.

    The channels are whitened, so an unweighted loss would care as much for the faintest texture as for brightness.
    """
    effect = decoder.linear.weight.detach().flatten(1).norm(dim=1).view(1, -1, 1, 1) * decoder.std
    root: Tensor = effect.sqrt()
    return root / root.mean()


def _entry(source: Tensor, target: Tensor, level: Tensor) -> Tensor:
    """The noised source; one in three times something between it and the target, as later steps and the past are."""
    n = source.shape[0]
    share = torch.where(torch.rand(n) < 0.35, torch.rand(n), torch.zeros(n))[:, None, None, None]
    clean = torch.lerp(source, target, share)
    x = level[:, :1, None, None] * clean + level[:, 1:, None, None] * torch.randn_like(clean)
    return x.contiguous(memory_format=torch.channels_last)
