"""Latents mixed with one another, each in one pass: levels made and split, references blended in, trust of cells.

What is held to laws that go to the bit is rounded as torch rounds it (`stages/solvers/pair.py` tells them).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpfuse.stages.cpu.compile import exact_part, kernel

Flat = npt.NDArray[np.float32]
Latents = npt.NDArray[np.float32]

_ZERO: Any = np.float32(0)
_HALF: Any = np.float32(0.5)
_ONE: Any = np.float32(1)


def takes(*tensors: Tensor) -> bool:
    """Whether kernels can read them where they lie: float32 on the CPU, contiguous, without a gradient."""
    for x in tensors:
        if not (x.is_cpu and x.dtype == torch.float32 and x.is_contiguous()) or x.requires_grad:
            return False
    return True


def takes_alike(x: Tensor, *others: Tensor) -> bool:
    """`takes`, and all have the shape of x."""
    for other in others:
        if other.shape != x.shape:
            return False
    return takes(x, *others)


def takes_map(weight: Tensor, x: Tensor) -> bool:
    """Whether weight is a map over the cells of x that kernels can read: [1 or b, 1, h, w] for x [b, c, h, w]."""
    if weight.ndim != 4 or x.ndim != 4:
        return False
    return weight.shape[0] in (1, x.shape[0]) and weight.shape[1:] == (1, *x.shape[2:]) and takes(weight)


def line(a: float, x: Tensor, b: float, y: Tensor, over: float = 1.0) -> Tensor:
    """(a x + b y) / over, of two latents that `takes_alike`; with a or over 1 as if they were not there."""
    out = torch.empty_like(x)
    _line(a, x.numpy().ravel(), b, y.numpy().ravel(), over, out.numpy().ravel())
    return out


def blend(
    x0: Tensor,
    x0_ref: Tensor,
    weight: Tensor,
    gains: tuple[float, float],
    noises: tuple[Tensor, ...],
    rho: float,
    inner_strength: float,
) -> Tensor:
    """`sampling.fuse` of latents and noises that `takes_alike` and a weight that `takes_map`.

    gains   alpha' and sigma'
    noises  n and n_ref; one where they are the same; none where sigma' = 0
    """
    out = torch.empty_like(x0)
    clean = x0.numpy(), x0_ref.numpy(), weight.numpy()
    match noises:
        case ():
            _blend(*clean, gains[0], out.numpy())
        case (n,):
            _blend_and_noise(*clean, *gains, n.numpy(), out.numpy())
        case (n, n_ref):
            _blend_both(*clean, *gains, n.numpy(), n_ref.numpy(), rho, inner_strength, out.numpy())
    return out


def cell_trust(trust: Tensor, factor: int) -> Tensor:
    """`trust.reduce_to_latent` with norm 2, of [b, 1, h, w] that `takes`; h and w are multiples of factor."""
    b, _, h, w = trust.shape
    out = torch.empty(b, 1, h // factor, w // factor)
    _cell_trust(trust.numpy(), out.numpy())
    return out


@kernel("void(float32, float32[::1], float32, float32[::1], float32, float32[::1])", exact=True)
def _line(a: float, x: Flat, b: float, y: Flat, over: float, out: Flat) -> None:
    if over == _ONE:
        for i in range(len(x)):
            out[i] = a * x[i] + b * y[i]
    else:
        for i in range(len(x)):
            out[i] = (a * x[i] + b * y[i]) / over


_FOUR = "float32[:, :, :, ::1]"


@exact_part
def _between(own: Any, other: Any, weight: Any) -> Any:
    """(1 - w) own + w other, from the nearer end as torch.lerp: exact at both."""
    apart = other - own
    return own + weight * apart if weight < _HALF else other - (_ONE - weight) * apart


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR}, float32, {_FOUR})", exact=True)
def _blend(x0: Latents, x0_ref: Latents, weight: Latents, alpha: float, out: Latents) -> None:
    b, c, h, w = x0.shape
    for i in range(b):
        part_of = weight[min(i, len(weight) - 1), 0].reshape(-1)
        for j in range(c):
            own, other, target = x0[i, j].reshape(-1), x0_ref[i, j].reshape(-1), out[i, j].reshape(-1)
            for k in range(h * w):
                target[k] = alpha * _between(own[k], other[k], part_of[k])


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR}, float32, float32, {_FOUR}, {_FOUR})", exact=True)
def _blend_and_noise(
    x0: Latents, x0_ref: Latents, weight: Latents, alpha: float, sigma: float, n: Latents, out: Latents
) -> None:
    b, c, h, w = x0.shape
    for i in range(b):
        part_of = weight[min(i, len(weight) - 1), 0].reshape(-1)
        for j in range(c):
            own, other, target = x0[i, j].reshape(-1), x0_ref[i, j].reshape(-1), out[i, j].reshape(-1)
            noise = n[i, j].reshape(-1)
            for k in range(h * w):
                target[k] = alpha * _between(own[k], other[k], part_of[k]) + sigma * noise[k]


@kernel(f"void({_FOUR}, {_FOUR}, {_FOUR}, float32, float32, {_FOUR}, {_FOUR}, float32, float32, {_FOUR})", exact=True)
def _blend_both(
    x0: Latents,
    x0_ref: Latents,
    weight: Latents,
    alpha: float,
    sigma: float,
    n: Latents,
    n_ref: Latents,
    rho: float,
    inner_strength: float,
    out: Latents,
) -> None:
    b, c, h, w = x0.shape
    gains = np.empty(h * w, np.float32)
    for i in range(b):
        part_of = weight[min(i, len(weight) - 1), 0].reshape(-1)
        for k in range(h * w):
            known = part_of[k] * rho
            left = _ONE - part_of[k] * part_of[k] + known * known  # rho^2 at w = 1 to the last bit, so the gain is 0
            gain = inner_strength * (np.sqrt(_ZERO if left < _ZERO else left) - known)
            least = _ONE - part_of[k]
            gains[k] = least if inner_strength < _ONE and gain < least else gain
        for j in range(c):
            own, other, target = x0[i, j].reshape(-1), x0_ref[i, j].reshape(-1), out[i, j].reshape(-1)
            noise, noise_ref = n[i, j].reshape(-1), n_ref[i, j].reshape(-1)
            for k in range(h * w):
                mixed = part_of[k] * noise_ref[k] + gains[k] * noise[k]
                target[k] = alpha * _between(own[k], other[k], part_of[k]) + sigma * mixed


@kernel(f"void({_FOUR}, {_FOUR})")
def _cell_trust(trust: Latents, out: Latents) -> None:
    b, _, h, w = out.shape
    factor = trust.shape[3] // w
    share = _ONE / np.float32(factor * factor)
    sums = np.empty(w * factor, np.float32)
    for i in range(b):
        for y in range(h):
            sums[:] = _ZERO
            for dy in range(factor):
                row = trust[i, 0, y * factor + dy]
                for x in range(w * factor):
                    sums[x] += (_ONE - row[x]) * (_ONE - row[x])
            for x in range(w):
                total = _ZERO
                for dx in range(factor):
                    total += sums[x * factor + dx]
                out[i, 0, y, x] = _ONE - np.sqrt(total * share)
