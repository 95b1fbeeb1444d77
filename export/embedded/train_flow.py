"""Train the flow network on pairs whose flow is known. One way is enough: the other is the same network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from . import checkpoint
from .flow_network import TinyFlowNetwork, enlarge
from .motion import at_scales, batch, random_pair
from .photographs import Picture
from .schedule import Length, descend, learning_rate

CROP = 224, 288  # height and width, multiples of 16
FINE_FROM = 0.3  # of the training; what lies near already is worth more from there on
WEIGHTS = (0.1, 0.15, 0.25)  # of what is found on the way, beside 1 for the end


def train(
    photos: Sequence[Picture], length: Length, seed: int, keep_at: Path, say: Callable[[str], None], count: int = 8,
    peak: float = 8.0e-4,
) -> TinyFlowNetwork:  # fmt: skip
    """Train, or take up the training kept at `keep_at`, and return the network's average, in evaluation mode."""
    torch.manual_seed(seed)
    photos = at_scales(photos, *CROP)
    network = checkpoint.channels_last(TinyFlowNetwork())
    average = checkpoint.average_of(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    parts = {"network": network, "average": average, "optimiser": optimiser}
    step, before = checkpoint.load(keep_at, parts)
    started = time.monotonic()
    errors: list[Tensor] = []
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(_batch, photos, count, seed, step)
        while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
            cur, prev, flow = coming.result()
            coming = ahead.submit(_batch, photos, count, seed, step + 1)
            loss, error = losses(network, cur, prev, flow, fine=progress > FINE_FROM)
            descend(optimiser, loss, learning_rate(progress, peak), network.parameters())
            checkpoint.update_average(average, network, step, 0.998)
            errors.append(error)
            step += 1
            if step % 100 == 0 or step <= 2:
                seconds = before + time.monotonic() - started
                say(f"flow step {step} seconds {seconds:.0f} end-point error {torch.stack(errors).mean():.3f} px")
                errors.clear()
            if step % 500 == 0:
                checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    return average.eval()


def losses(
    network: TinyFlowNetwork, cur: Tensor, prev: Tensor, flow: Tensor, fine: bool = False
) -> tuple[Tensor, Tensor]:
    """(loss, mean end-point error in pixels) of one way; cur, prev [n,3,h,w], flow [n,2,h,w] in pixels.

    fine  the root of each error counts beside the error: a fifth of a pixel is pulled at three times as hard, and that
          is what blurs a picture which is pulled along the flow again and again
    """
    seen = network.see(torch.cat((cur, prev)))
    n = len(cur)
    here, there = ({c: (features[rows], keys[rows]) for c, (features, keys) in seen.items()}
                   for rows in (slice(n), slice(n, None)))  # fmt: skip
    found = network.estimate(here, there)
    errors = _distances(enlarge(4 * found[-1], 4), flow)
    loss = error = errors.mean()
    if fine:
        loss = loss + 2 * (errors + 0.01).sqrt().mean()
    for weight, coarse in zip(WEIGHTS, found[:-1], strict=True):
        cell = flow.shape[-1] // coarse.shape[-1]
        loss = loss + weight * _distances(cell * coarse, avg_pool2d(flow, cell)).mean()
    return loss, error.detach()


def _distances(flow: Tensor, other: Tensor) -> Tensor:
    """[n,h,w] pixels, never quite 0."""
    return ((flow - other).square().sum(1) + 1e-4).sqrt()


def _batch(photos: Sequence[Picture], count: int, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng([seed, 3, step])
    return batch([random_pair(photos, *CROP, rng) for _ in range(count)])
