"""The locks of `formulas/moment_lock.py` on a card: a kernel adds up moments, another one applies the lock.

Sums are float64 and in the same order at every launch, so that a frame is the same whenever it is computed.
"""

import torch
from torch import Tensor

from warpfuse.stages.cuda.kernels import CHUNK, blocks, launch, plain
from warpfuse.stages.formulas.moment_lock import LARGEST, SMALLEST


def lock_to_source(z_ref: Tensor, z: Tensor) -> Tensor:
    """As `formulas.lock_to_source`."""
    own, other = plain(z), plain(z_ref)
    grid, moments = _detail_moments(own, other)
    out = torch.empty_like(own)
    launch("lock_to_source", grid, own, own, other, moments, out, *own.shape[-2:])
    return out.to(z.dtype)


def fuse_at_entry(
    z: Tensor,
    n: Tensor,
    z_ref: Tensor,
    n_ref: Tensor,
    trust: Tensor,
    weight: Tensor,
    rho: float,
    alpha: float,
    sigma: float,
    inner_strength: float,
    locked: bool,
) -> Tensor:
    """As `formulas.fuse_at_entry`."""
    own, other = plain(z), plain(z_ref)
    _, c, h, w = own.shape
    grid, moments = _detail_moments(own, other) if locked else ((blocks(h * w, CHUNK), c), None)
    noise = plain(n)
    noises = noise, noise if n_ref is n else plain(n_ref)
    out = torch.empty_like(own)
    numbers = float(rho), float(alpha), float(sigma), float(inner_strength)
    launch("fuse_at_entry", grid, own, own, other, moments, *noises, plain(trust), plain(weight), out, h, w, *numbers)
    return out.to(z.dtype)


def lock_to_prediction(
    x: Tensor,
    x0: Tensor,
    trust: Tensor,
    gain: Tensor | None,
    exit: float,
    rate: float,
    coverage: float,
    drift: float,
) -> tuple[Tensor, Tensor]:
    """As `formulas.lock_to_prediction`."""
    return _locked(x0, None, plain(x), trust, None, gain, (exit, rate, coverage, drift))


def fuse_at_exit(
    x0: Tensor,
    x0_ref: Tensor,
    trust: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    exit: float,
    rate: float,
    coverage: float,
    drift: float,
) -> tuple[Tensor, Tensor]:
    """As `formulas.fuse_at_exit`."""
    return _locked(x0, plain(x0_ref), None, trust, plain(weight), gain, (exit, rate, coverage, drift))


def _detail_moments(own: Tensor, other: Tensor) -> tuple[tuple[int, int], Tensor]:
    """Moments of the details of two latents, for each channel and chunk; and the blocks."""
    b, c, h, w = own.shape
    grid = blocks(h * w, CHUNK), b * c
    moments = torch.empty((b * c, grid[0], 4), dtype=torch.float64, device=own.device)
    launch("detail_moments", grid, own, own, other, moments, h, w)
    return grid, moments


def _locked(
    x0: Tensor,
    x0_ref: Tensor | None,
    given: Tensor | None,
    trust: Tensor,
    weight: Tensor | None,
    gain: Tensor | None,
    numbers: tuple[float, float, float, float],
) -> tuple[Tensor, Tensor]:
    """The exit lock of x, which is `given`, or x0 fused with a reference."""
    own, m = plain(x0), plain(trust)
    _, c, h, w = own.shape
    before = plain(gain) if gain is not None and gain.shape[1] == c else None
    grid = blocks(h * w, CHUNK), c
    moments = torch.empty((c, grid[0], 5), dtype=torch.float64, device=x0.device)
    after, out = torch.empty((1, c, 1, 1), device=x0.device), torch.empty_like(own)
    reads = own, x0_ref, given, m, weight, moments
    launch("trusted_moments", grid, own, *reads, h * w)
    bounds = SMALLEST, LARGEST, *map(float, numbers)
    launch("lock_to_prediction", grid, own, *reads, before, after, out, h * w, *bounds)
    return out.to(x0.dtype), after
