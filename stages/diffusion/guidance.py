"""Classifier-free guidance on the pair (x0, n), and residual guidance, which needs fewer passes (StreamDiffusion).

    n = n_u + g (n_c - n_u),    x0 likewise (Ho and Salimans 2022, eq. 6): x = alpha x0 + sigma n still holds,
                                since both pairs have the same x

Where the unconditional pair (x0_u, n_u) comes from:

    full        an unconditional pass of the network for every row and call
    self        no unconditional pass: the source counts as the unconditional picture
    initialize  one unconditional pass a frame, at the first call, whose picture is kept

Note: no stock noise. Kodaira et al. 2023 (eq. 7) carry a noise r_k from step to step, by a recursion that follows the
solver's steps. It equals the noise under which the assumed picture p would be clean: r_k = (x_k - alpha_k p) / sigma_k,
with p the source latent or the first unconditional x0. This formula needs no state, fits every solver, and stays right
after a reference has been fused into x_k, which the recursion ignores. A test compares the two.
"""

import torch
from torch import Tensor

from warpfuse.stages.solvers.levels import Level


def guided(
    conditional: tuple[Tensor, Tensor], unconditional: tuple[Tensor, Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """The guided pair (x0, n): (1 - g) unconditional + g conditional. g = 1 gives the conditional pair bit for bit."""
    (x0_c, n_c), (x0_u, n_u) = conditional, unconditional
    if scale == 1:
        return conditional
    return _line(x0_u, x0_c, scale), _line(n_u, n_c, scale)


def assumed(x: Tensor, x0: Tensor, level: Level, delta: float) -> tuple[Tensor, Tensor]:
    """The unconditional pair of x at `level` with x0 as its picture: n_u = delta (x - alpha x0) / sigma.

    x, x0  [b, c, h, w]
    delta  share of that noise; 1 gives x0 itself and the noise between x0 and x

    Raises ValueError at a level without noise and, unless delta is 1, without signal: n_u does not fix x0_u there.
    """
    alpha, sigma = level.alpha, level.sigma
    if sigma == 0 or (alpha == 0 and delta != 1):
        raise ValueError(f"no unconditional pair can be assumed at {level} with delta {delta}: set delta to 1")
    wide = torch.promote_types(torch.promote_types(x.dtype, x0.dtype), torch.float32)
    n = (x.to(wide) - alpha * x0.to(wide)) / sigma
    if delta == 1:
        return x0, n.to(x.dtype)
    x0_u = (x.to(wide) - sigma * delta * n) / alpha
    return x0_u.to(x0.dtype), (delta * n).to(x.dtype)


def _line(start: Tensor, end: Tensor, part: float) -> Tensor:
    wide = torch.promote_types(torch.promote_types(start.dtype, end.dtype), torch.float32)
    return ((1 - part) * start.to(wide) + part * end.to(wide)).to(end.dtype)
