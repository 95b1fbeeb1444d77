"""Rescaled fusion of a frame's latent and noise with a reference's, for any device.

`solvers/pair.py` explains the pair (x0, n) and checks what goes in.
"""

import math
from typing import overload

import torch
from torch import Tensor

from warpfuse.stages.formulas.moment_lock import lock_to_prediction, lock_to_source


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
    """Entry fusion: `fuse_pair` of the latents z and z_ref and their noises, by w = weight trust.

    z, n, z_ref, n_ref  [1, c, h, w]
    trust               [1, 1, h, w]
    weight              one number on the device
    locked              z_ref first gets the statistics of z (`lock_to_source`)
    """
    if locked:
        z_ref = lock_to_source(z_ref, z)
    return fuse_pair(z, n, z_ref, n_ref, trust * weight, rho, alpha, sigma, inner_strength)


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
    """Exit fusion: `lock_to_prediction` of x = w x0_ref + (1 - w) x0, w = weight trust.

    x0_ref  [1, c, h, w], finite also where the trust is 0
    weight  one number on the device
    """
    return lock_to_prediction(fuse_clean(x0, x0_ref, trust * weight), x0, trust, gain, exit, rate, coverage, drift)


def fuse_clean(x0: Tensor, x0_ref: Tensor, weight: Tensor) -> Tensor:
    """w x0_ref + (1 - w) x0, in the dtype of x0; x0 to the bit where the weight is 0."""
    return fuse_pair(x0, None, x0_ref, None, weight, 0.0, 1.0, 0.0, 1.0)


def fuse_pair(
    x0: Tensor,
    n: Tensor | None,
    x0_ref: Tensor,
    n_ref: Tensor | None,
    weight: Tensor | float,
    rho: float,
    alpha: float,
    sigma: float,
    inner_strength: float,
) -> Tensor:
    """alpha [w x0_ref + (1 - w) x0] + sigma [w n_ref + r n], r = `noise_gain`, in the dtype of x0.

    The noises are not used at sigma = 0.
    """
    wide = wide_dtype(x0, n, x0_ref, n_ref)
    w = weight.to(wide) if isinstance(weight, Tensor) else weight
    blended = torch.lerp(x0.to(wide), x0_ref.to(wide), w)  # exact at both ends
    if sigma == 0:
        return scaled(alpha, blended).to(x0.dtype)
    assert n is not None and n_ref is not None
    own = n.to(wide)
    if n is not n_ref or rho != 1:  # else w n + (1 - w) n
        own = fuse_noises(own, n_ref.to(wide), w, noise_gain(w, rho, inner_strength))
    return line(alpha, blended, sigma, own).to(x0.dtype)


def noise_gain(weight: Tensor | float, rho: Tensor | float, inner_strength: float = 1.0) -> Tensor | float:
    """The factor r of a frame's own noise in `fuse`, for any inner_strength. Raises ValueError as `fuse` does."""
    _need_strength(inner_strength)
    return _softened(rescale(weight, rho), weight, inner_strength)


def fuse_noises(n: Tensor, n_ref: Tensor, weight: Tensor | float, gain: Tensor | float) -> Tensor:
    """The noise of `fuse`, w n_ref + r n. weight, gain: w and `noise_gain`."""
    return weight * n_ref + gain * n


@overload
def rescale(weight: float, rho: float) -> float: ...
@overload
def rescale(weight: Tensor, rho: float) -> Tensor: ...
@overload
def rescale(weight: Tensor | float, rho: Tensor | float) -> Tensor | float: ...
def rescale(weight: Tensor | float, rho: Tensor | float) -> Tensor | float:
    """The factor r of a frame's own noise n that gives `weight n_ref + r n` unit variance: w^2 + r^2 + 2 w r rho = 1.

        r(w, rho) = -w rho + sqrt(1 - w^2 (1 - rho^2))              the positive root

    weight  w in [0, 1], a number or a tensor of any shape
    rho     correlation of the two noises, in [-1, 1]: 0 for independent noises, 1 for the same tensor; a tensor if it
            varies

    r(0, rho) = 1 exactly, and r(1, rho) = 0 exactly for rho >= 0. For rho < 0, r(1, rho) = 2 |rho|, because noises that
    oppose each other cancel in part. Raises ValueError for a number out of range. Tensors are not checked, since that
    would wait for the device.
    """
    if not isinstance(rho, Tensor):
        _need_rho(rho)
    if isinstance(weight, Tensor) or isinstance(rho, Tensor):
        weight = torch.as_tensor(weight)
        w = weight.to(torch.promote_types(weight.dtype, torch.float32))
        # 1 - w^2 + (w rho)^2 is exactly rho^2 at w = 1, so that r is exactly 0 there; 1 - w^2 (1 - rho^2) is not.
        # A blurred mask has weights slightly above 1 by rounding. Without the clamp they would give NaN.
        r = (1 - w * w + (w * rho) * (w * rho)).clamp_min(0).sqrt() - w * rho
        return r.to(weight.dtype) if weight.is_floating_point() else r
    need_weight(weight)
    return math.sqrt(1 - weight * weight + (weight * rho) * (weight * rho)) - weight * rho


def line(a: float, x: Tensor, b: float, y: Tensor, over: float = 1.0) -> Tensor:
    """(a x + b y) / over."""
    out = torch.add(scaled(a, x), y, alpha=b)
    return out if over == 1 else out / over


def scaled(a: float, x: Tensor) -> Tensor:
    """a x; x itself for 1."""
    return x if a == 1 else a * x


def _softened(r: Tensor | float, w: Tensor | float, inner_strength: float) -> Tensor | float:
    """max(1 - w, inner_strength r); exactly r for inner_strength 1."""
    if inner_strength == 1:
        return r
    if isinstance(w, Tensor):
        return torch.maximum(1 - w, inner_strength * torch.as_tensor(r))
    return max(1 - w, inner_strength * float(r))


def wide_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The dtype to compute in: float32, or float64 if any of the tensors is."""
    wide = torch.float32
    for tensor in tensors:
        if tensor is not None:
            wide = torch.promote_types(wide, tensor.dtype)
    return wide


def need_weight(weight: float) -> None:
    """Raise ValueError for a weight out of range."""
    if not 0 <= weight <= 1:
        raise ValueError(f"the fusion weight must be in [0, 1], got {weight}")


def _need_rho(rho: float) -> None:
    if not -1 <= rho <= 1:
        raise ValueError(f"the correlation rho must be in [-1, 1], got {rho}")


def _need_strength(inner_strength: float) -> None:
    if not 0 <= inner_strength <= 1:
        raise ValueError(f"inner_strength must be in [0, 1], got {inner_strength}")
