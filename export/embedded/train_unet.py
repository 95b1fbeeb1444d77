"""Last lessons of the UNet, as it is used: fresh frames, frames fused with the styled past, and what is seen of both.

A quarter of every batch are pairs of the previous step met again. The second time the entry latent is mixed with the
encoding of the network's own picture, moved by a fraction of a pixel there and nearly back: what warping makes of a
styled frame. Then what is judged is the prediction blended with that past once more, as it will be shown: where the
past has gone soft, the prediction has to make up for it. Some pairs are met many times, so long recursions occur too.
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
from .autoencoder import Decoder, Encoder
from .batches import pairs, shifted
from .levels import alphas_and_sigmas, random_levels
from .losses import liveliness_loss, picture_loss
from .plates import Plate
from .schedule import Length, learning_rate
from .train_styles import importance
from .unet import UNet

CROP = 128


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a step teaches: the clean source latent [n,16,h,w], the stylised one, its picture, the style vector [n,S],
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
    started = time.monotonic()
    again: Lesson | None = None
    while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
        rng = np.random.default_rng([seed, 3, step])
        torch.manual_seed(seed * 1_000_003 + 500_009 + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, peak)
        lesson = _lesson(plates, encoder, batch, rng, again)
        x, level = _entry(lesson, table)
        x0 = unet(x, lesson.source, level, lesson.style)
        shown = torch.lerp(x0, lesson.past, lesson.weight)
        looked_at = _some(lesson, batch)
        rgb, picture = decoder(shown[looked_at]), lesson.picture[looked_at]
        difference = weight * (shown - lesson.target)
        latent = difference.abs().mean() + 0.1 * difference.square().mean()
        seen, lively = picture_loss(rgb, picture), liveliness_loss(rgb, picture)
        optimiser.zero_grad(set_to_none=True)
        (latent + 4.0 * seen + 2.0 * lively).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        checkpoint.update_average(average, unet, step, 0.997)
        met = [*range(batch // 4 - batch // 12), *range(len(rgb) - batch // 12, len(rgb))]
        again = _met_again(lesson, looked_at[met], rgb[met].detach(), encoder)
        step += 1
        if step % 100 == 0 or step <= 2:
            seconds = before + time.monotonic() - started
            say(f"unet step {step} seconds {seconds:.0f} latent {latent:.4f} picture {seen:.4f} lively {lively:.4f}")
        if step % 500 == 0:
            checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    return average.eval()


def _lesson(
    plates: Sequence[Plate], encoder: Encoder, count: int, rng: np.random.Generator, again: Lesson | None
) -> Lesson:
    """New pairs first, without a past; then `again`."""
    fresh = count if again is None else count - again.source.shape[0]
    source, picture, style = pairs(plates, fresh, CROP, rng)
    with torch.no_grad():
        both = encoder(torch.cat([source, picture]).contiguous(memory_format=torch.channels_last))
    z, z_styled = both.chunk(2)
    new = Lesson(z, z_styled, picture, style, torch.zeros_like(z), torch.zeros(fresh, 1, 1, 1))
    if again is None:
        return new
    return Lesson(*(torch.cat([getattr(new, name), getattr(again, name)]) for name in Lesson.__slots__))


def _some(lesson: Lesson, batch: int) -> Tensor:
    """Indices of the pairs that are decoded: half a batch of those without a past, and all that are met again."""
    met = lesson.weight.flatten() > 0
    return torch.cat([(~met).nonzero()[: batch // 2, 0], met.nonzero()[:, 0]])


def _entry(lesson: Lesson, table: Tensor) -> tuple[Tensor, Tensor]:
    """(x, level): the noised entry latent.

    It starts from the source, one time in four from the stylised latent, as later steps of several do; the past is
    mixed in by its weight.
    """
    n = lesson.source.shape[0]
    level = random_levels(table, n)
    alpha, sigma = level[:, :1, None, None], level[:, 1:, None, None]
    later = (torch.rand(n, 1, 1, 1) < 0.25).float()
    clean = torch.lerp(lesson.source, lesson.target, later)
    clean = torch.lerp(clean, lesson.past, lesson.weight)
    return alpha * clean + sigma * torch.randn_like(clean), level


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
