"""Noise levels, predicted x0 and rescaled fusion: the arithmetic common to all diffusion families.

A latent at a level is `x = alpha x0 + sigma n` with `n` of unit variance. Functions work on the pair (x0, n), and `x`
is composed last, so one fusion works for every family. Everything is computed in float32 at least, because the formula
for x0 amplifies rounding errors fifteen-fold at timestep 999. Results have the dtype of the inputs.
"""

import math

from torch import Tensor

from warpfuse.stages.formulas.fusion import fuse_pair, line, need_weight, wide_dtype
from warpfuse.stages.solvers.levels import Level

PREDICTIONS = ("epsilon", "v", "sample", "flow")


def clean_and_noise(x: Tensor, output: Tensor, level: Level, prediction: str) -> tuple[Tensor, Tensor]:
    """Split a noisy latent into (x0, n) by the network's output. `x = alpha x0 + sigma n` holds for the result.

    x, output   [b, c, h, w] (any shapes that broadcast), x at `level`, output of the network
    prediction  what the network was trained to predict, which defines x0 and n:
        epsilon  e          (x - sigma e) / alpha     e                        also Karras levels: alpha = 1
        v        v          alpha x - sigma v         sigma x + alpha v        needs alpha^2 + sigma^2 = 1
        sample   x0         x0                        (x - alpha x0) / sigma
        flow     n - x0     x - sigma u               x + (1 - sigma) u        needs alpha + sigma = 1

    Both results have the dtype of x. Raises ValueError for an unknown prediction and for a level at
    which it defines no pair.
    """
    as_x0, as_n = _reading(level, prediction)
    return _read(x, output, as_x0), _read(x, output, as_n)


def clean(x: Tensor, output: Tensor, level: Level, prediction: str) -> Tensor:
    """The x0 of `clean_and_noise` alone. After the last call of a frame, n is not used."""
    return _read(x, output, _reading(level, prediction)[0])


Weights = tuple[float, float, float]

_SAID: Weights = (0.0, 1.0, 1.0)


def _reading(level: Level, prediction: str) -> tuple[Weights, Weights]:
    """(a, b, over) for x0 and for n, each of which is (a x + b output) / over: the table of `clean_and_noise`."""
    alpha, sigma = level.alpha, level.sigma
    match prediction:
        case "epsilon":
            _need(alpha > 0, prediction, level, "alpha > 0")
            return (1.0, -sigma, alpha), _SAID
        case "v":
            _need(abs(alpha**2 + sigma**2 - 1) < 1e-4, prediction, level, "alpha^2 + sigma^2 = 1")
            return (alpha, -sigma, 1.0), (sigma, alpha, 1.0)
        case "sample":
            _need(sigma > 0, prediction, level, "sigma > 0")
            return _SAID, (1.0, -alpha, sigma)
        case "flow":
            _need(abs(alpha + sigma - 1) < 1e-4, prediction, level, "alpha + sigma = 1")
            return (1.0, -sigma, 1.0), (1.0, 1 - sigma, 1.0)
        case _:
            raise ValueError(f"unknown prediction {prediction!r}: one of {', '.join(PREDICTIONS)}")


def _read(x: Tensor, output: Tensor, weights: Weights) -> Tensor:
    if weights is _SAID:
        return output.to(x.dtype)
    wide = wide_dtype(x, output)
    a, b, over = weights
    return line(a, x.to(wide), b, output.to(wide), over).to(x.dtype)


def compose(x0: Tensor, n: Tensor | None, level: Level) -> Tensor:
    """x = alpha x0 + sigma n, in the dtype of x0. At sigma = 0 the noise is not used and may be None.

    Raises ValueError when noise is needed and n is None.
    """
    wide = wide_dtype(x0, n)
    if level.sigma == 0:
        return (level.alpha * x0.to(wide)).to(x0.dtype)  # a copy also for alpha 1: x0 may be an engine's memory
    return line(level.alpha, x0.to(wide), level.sigma, _given(n, "n", level).to(wide)).to(x0.dtype)


def fuse(
    x0: Tensor,
    n: Tensor | None,
    x0_ref: Tensor,
    n_ref: Tensor | None,
    weight: Tensor | float,
    rho: float,
    level_next: Level,
    inner_strength: float = 1.0,
) -> Tensor:
    """Blend a pair with a reference's, at the next, lower level, keeping the variance of the noise.

        x' = alpha' [w x0_ref + (1 - w) x0]  +  sigma' [w n_ref + r n],      r = rescale(w, rho)

    x0, n          [b, c, h, w], this frame's pair; n is the next level's unit noise (fresh for LCM, see `ddim_noise`)
    x0_ref, n_ref  the reference's pair, broadcastable to it. It must be finite also where w is 0, since 0 NaN = NaN
    weight         w in [0, 1], a number or a map [b, 1, h, w]. A mask is applied to the weight only: applied to the
                   reference as well, it would darken every soft edge by up to an eighth
    rho            correlation of n_ref and n
    inner_strength in [0, 1]. 1 keeps the level exact. Below 1, r is max(1 - w, inner_strength r), as in
                   Rerender-A-Video (Yang et al. 2023, with 0.9), which leaves slightly less noise than the level has

    w = 0 equals `compose(x0, n, level_next)` bit for bit. w = 1 gives the reference (for rho >= 0 and inner_strength
    1). At sigma' = 0 only x0 is blended, and the noises may be None. The result has the dtype of x0.

    Raises ValueError when weight, rho or inner_strength is a number out of range, or a needed noise is None.
    """
    if not isinstance(weight, Tensor):
        need_weight(weight)
    if level_next.sigma != 0:
        n, n_ref = _given(n, "n", level_next), _given(n_ref, "n_ref", level_next)
    return fuse_pair(x0, n, x0_ref, n_ref, weight, rho, level_next.alpha, level_next.sigma, inner_strength)


def ddim_noise(n: Tensor, z: Tensor, eta: float, level: Level, level_next: Level) -> Tensor:
    """The unit noise of a DDIM step with eta > 0, from the predicted n and a fresh unit z of its shape.

        n' = sqrt(1 - k^2) n + k z,    k = (eta / sigma) sqrt(1 - alpha^2 / alpha'^2)       (DDIM, eq. 12 and 16)

    eta in [0, 1]: 0 is deterministic (n itself), 1 is DDPM. For variance-preserving levels, level_next the lower one.
    The correlation with a reference noise is mixed in the same way; that of fresh noise is rho = 0.
    Raises ValueError for eta out of range or levels that do not descend.
    """
    k = fresh_share(eta, level, level_next)
    wide = wide_dtype(n, z)
    return (math.sqrt(max(0.0, 1 - k * k)) * n.to(wide) + k * z.to(wide)).to(n.dtype)


def fresh_share(eta: float, level: Level, level_next: Level) -> float:
    """The k of `ddim_noise`, in [0, 1]: the correlation of its result with the fresh z. Raises ValueError likewise."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    if not (level.sigma > 0 and 0 <= level.alpha <= level_next.alpha):
        raise ValueError(f"a step goes from a noisy level to a lower one, got {level} -> {level_next}")
    return min(1.0, eta / level.sigma * math.sqrt(1 - (level.alpha / level_next.alpha) ** 2))


def _need(holds: bool, prediction: str, level: Level, what: str) -> None:
    if not holds:
        raise ValueError(f"prediction {prediction!r} needs a level with {what}, got {level}")


def _given(noise: Tensor | None, name: str, level: Level) -> Tensor:
    if noise is None:
        raise ValueError(f"noise {name!r} is None at sigma {level.sigma}: only a step to sigma = 0 needs no noise")
    return noise
