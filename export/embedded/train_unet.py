"""Last lessons of the UNet, as it is used: fresh frames, frames fused with the styled past, and what is seen of both.

A quarter of every batch are pairs of the previous step met again. The second time the entry latent is mixed with the
encoding of the network's own picture, moved by a fraction of a pixel there and nearly back: what warping makes of a
styled frame. Then what is judged is the prediction blended with that past once more, as it will be shown: where the
past has gone soft, the prediction has to make up for it. Some pairs are met many times, so long recursions occur too.

Another quarter are twins: the same pair cut up to seven pixels further on, with the same noise, as a moving camera cuts
it. What is shown of both has to move alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import checkpoint
from .autoencoder import DOWNSCALE, Decoder, Encoder
from .batches import pairs, shifted, window
from .levels import alphas_and_sigmas, random_levels
from .losses import grid_loss, liveliness_loss, picture_loss, unsteadiness
from .plates import Plate
from .schedule import Length, learning_rate
from .train_styles import importance
from .unet import UNet

CROP = 128
WEIGHTS = {"latent": 1.0, "picture": 4.0, "lively": 2.0, "grid": 4.0, "unsteady": 2.0}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a step teaches: the clean source latent [n,C,h,w], the stylised one, its picture, the style vector [n,S],
    the latent of the styled past and how much of it is in the entry latent [n,1,1,1]."""

    source: Tensor
    target: Tensor
    picture: Tensor
    style: Tensor
    past: Tensor
    weight: Tensor


def train(
    unet: UNet,
    plates: Sequence[Plate],
    encoder: Encoder,
    decoder: Decoder,
    length: Length,
    seed: int,
    keep_at: Path,
    say: Callable[[str], None],
    batch: int = 12,
    peak: float = 4.0e-4,
) -> UNet:
    """Train `unet` on, or take up the training kept at `keep_at`; returns the average of the weights, for evaluation.

    `encoder` and `decoder` are only looked through: their weights do not change.
    """
    unet.requires_grad_(True)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    average = checkpoint.average_of(unet)
    parts = {"unet": unet, "optimiser": optimiser, "average": average}
    step, before = checkpoint.load(keep_at, parts)
    for network in (encoder, decoder):
        network.eval().requires_grad_(False)
    table, weight = alphas_and_sigmas(), importance(decoder)
    twins, oldest = batch // 4, batch // 12
    started = time.monotonic()
    again: Lesson | None = None
    while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
        rng = np.random.default_rng([seed, 3, step])
        torch.manual_seed(seed * 1_000_003 + 500_009 + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, peak)
        lesson, offset = _lesson(plates, encoder, batch, twins, rng, again)
        x, level = _entry(lesson, table, twins)
        shown = torch.lerp(unet(x, lesson.source, level, lesson.style), lesson.past, lesson.weight)
        rgb = decoder(shown)
        losses = _losses(shown, rgb, lesson, weight)
        losses["unsteady"] = unsteadiness(rgb[:twins], rgb[twins : 2 * twins], offset)
        optimiser.zero_grad(set_to_none=True)
        torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        checkpoint.update_average(average, unet, step, 0.998)
        met = torch.tensor([*range(twins - oldest), *range(batch - oldest, batch)])
        again = _met_again(lesson, met, rgb[met].detach(), encoder)
        step += 1
        if step % 100 == 0 or step <= 2:
            said = " ".join(f"{name} {loss.item():.4f}" for name, loss in losses.items())
            say(f"unet step {step} seconds {before + time.monotonic() - started:.0f} {said}")
        if step % 250 == 0:
            checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    return average.eval()


def _losses(shown: Tensor, rgb: Tensor, lesson: Lesson, weight: Tensor) -> dict[str, Tensor]:
    """How far what is shown, latent and picture, is from the lesson's target."""
    difference = weight * (shown - lesson.target)
    return {
        "latent": difference.abs().mean() + 0.1 * difference.square().mean(),
        "picture": picture_loss(rgb, lesson.picture),
        "lively": liveliness_loss(rgb, lesson.picture),
        "grid": grid_loss(rgb, lesson.picture),
    }


def _lesson(
    plates: Sequence[Plate], encoder: Encoder, count: int, twins: int, rng: np.random.Generator, again: Lesson | None
) -> tuple[Lesson, Tensor]:
    """(lesson, offset_px [twins,2]): new pairs without a past, then the twins of the first of them, then `again`."""
    fresh = count - twins - (0 if again is None else again.source.shape[0])
    big_source, big_picture, style = pairs(plates, fresh, CROP + DOWNSCALE, rng)
    offset = torch.from_numpy(rng.integers(0, DOWNSCALE, (twins, 2)))
    nowhere = torch.zeros(fresh, 2, dtype=torch.long)
    order = [*range(twins), *range(twins), *range(twins, fresh)]
    at = torch.cat([nowhere[:twins], offset, nowhere[twins:]])
    source, picture = (window(big[order], at, CROP) for big in (big_source, big_picture))
    with torch.no_grad():
        both = encoder(torch.cat([source, picture]).contiguous(memory_format=torch.channels_last))
    z, z_styled = both.chunk(2)
    new = Lesson(z, z_styled, picture, style[order], torch.zeros_like(z), torch.zeros(len(order), 1, 1, 1))
    if again is None:
        return new, offset
    return Lesson(*(torch.cat([getattr(new, name), getattr(again, name)]) for name in Lesson.__slots__)), offset


def _entry(lesson: Lesson, table: Tensor, twins: int) -> tuple[Tensor, Tensor]:
    """(x, level): the noised entry latent; twins get the noise of those they are twins of.

    It starts from the source, one time in four from the stylised latent, as later steps of several do; the past is
    mixed in by its weight.
    """
    n = lesson.source.shape[0]
    later = (torch.rand(n, 1, 1, 1) < 0.25).float()
    level, noise = random_levels(table, n), torch.randn_like(lesson.source)
    for drawn in (later, level, noise):
        drawn[twins : 2 * twins] = drawn[:twins]
    alpha, sigma = level[:, :1, None, None], level[:, 1:, None, None]
    clean = torch.lerp(lesson.source, lesson.target, later)
    clean = torch.lerp(clean, lesson.past, lesson.weight)
    return alpha * clean + sigma * noise, level


def _met_again(lesson: Lesson, which: Tensor, rgb: Tensor, encoder: Encoder) -> Lesson:
    """The pairs `which` [m], with the pictures rgb [m,3,8h,8w] that were shown as their past.

    They are moved by up to four pixels and back but for about half a pixel, as flow errs.
    """
    m = rgb.shape[0]
    offset = 8.0 * torch.rand(m, 2) - 4.0
    with torch.no_grad():
        moved = shifted(shifted(rgb.clamp(0.0, 1.0), offset), -offset + 0.3 * torch.randn(m, 2))
        past = encoder(moved.clamp(0.0, 1.0).contiguous(memory_format=torch.channels_last))
    weight = 0.95 * torch.rand(m, 1, 1, 1)
    return Lesson(lesson.source[which], lesson.target[which], lesson.picture[which], lesson.style[which], past, weight)
