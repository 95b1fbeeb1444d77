"""Train the autoencoder on photographs and paint layers, and on its own outputs.

The product encodes what it decoded a frame ago and moved by a fraction of a pixel, again and again. So a quarter of
every batch is the previous step's output, shifted, with the shifted original as its target: what one round trip loses,
the next must not lose once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import checkpoint
from .autoencoder import TinyDecoder, TinyEncoder, start_from_principal_components, whiten_exactly
from .batches import paint_crops, photograph_crops, shifted
from .losses import picture_loss
from .photographs import Picture
from .plates import Plate
from .schedule import Length, descend, learning_rate

CROP = 96


def train(
    photos: Sequence[Picture],
    plates: Sequence[Plate],
    length: Length,
    seed: int,
    keep_at: Path,
    say: Callable[[str], None],
    batch: int = 8,
    peak: float = 1.0e-3,
) -> tuple[TinyEncoder, TinyDecoder]:
    """Train, or take up the training kept at `keep_at`, and return both networks, whitened, in evaluation mode."""
    torch.manual_seed(seed)
    encoder, decoder = TinyEncoder(), TinyDecoder()
    rng = np.random.default_rng([seed, 0])
    seen = [
        *(photograph_crops(photos, 2 * batch, CROP, rng) for _ in range(16)),
        paint_crops(plates, 8 * batch, CROP, rng),
    ]
    start_from_principal_components(encoder, decoder, torch.cat(seen))
    for network in (encoder, decoder):
        checkpoint.channels_last(network)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    averages = checkpoint.average_of(encoder), checkpoint.average_of(decoder)
    parts = {"encoder": encoder, "decoder": decoder, "optimiser": optimiser}
    parts |= {"encoder_average": averages[0], "decoder_average": averages[1]}
    step, before = checkpoint.load(keep_at, parts)
    started, again = time.monotonic(), None
    while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
        rng = np.random.default_rng([seed, 1, step])
        torch.manual_seed(seed * 1_000_003 + step)
        rgb, target = _batch(photos, plates, batch, rng, again)
        z = encoder(rgb)
        out = decoder(z + 0.05 * torch.randn_like(z))
        loss = picture_loss(out, target)
        descend(optimiser, loss, learning_rate(progress, peak), parameters)
        checkpoint.update_average(averages[0], encoder, step, 0.998)
        checkpoint.update_average(averages[1], decoder, step, 0.998)
        again = _once_more(out.detach(), target, batch // 4)
        step += 1
        if step % 100 == 0 or step <= 2:
            fresh = (out[: batch // 2] - target[: batch // 2]).square().mean()
            seconds = before + time.monotonic() - started
            psnr = -10 * torch.log10(fresh)
            say(f"autoencoder step {step} seconds {seconds:.0f} loss {loss:.4f} psnr {psnr:.2f}")
        if step % 500 == 0:
            checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    best_encoder, best_decoder = averages
    rng = np.random.default_rng([seed, 2])
    whiten_exactly(best_encoder, best_decoder, [photograph_crops(photos, 2 * batch, 128, rng) for _ in range(16)])
    return best_encoder.eval(), best_decoder.eval()


def _batch(
    photos: Sequence[Picture],
    plates: Sequence[Plate],
    count: int,
    rng: np.random.Generator,
    again: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """(input, target): half photographs, then paint layers, last the shifted outputs of the previous step."""
    old = 0 if again is None else again[0].shape[0]
    photographs = photograph_crops(photos, count // 2, CROP, rng)
    new = torch.cat([photographs, paint_crops(plates, count - count // 2 - old, CROP, rng)])
    rgb, target = (new, new) if again is None else (torch.cat([new, again[0]]), torch.cat([new, again[1]]))
    return rgb.contiguous(memory_format=torch.channels_last), target


def _once_more(out: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Some of this step's outputs and their targets, both moved by the same fraction of pixels."""
    chosen = torch.randperm(out.shape[0])[:count]
    offset = 8.0 * torch.rand(count, 2) - 4.0
    return shifted(out[chosen].clamp(0.0, 1.0), offset), shifted(target[chosen], offset)
