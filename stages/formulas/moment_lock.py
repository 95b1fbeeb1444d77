"""Moment matching: what keeps the memory from rotting is statistics that are not the memory's own.

A picture that is fed back is styled again and again: what the network adds, and what warping and the autoencoder take
away, comes back with the next frame. Two locks tie the fed-back latent to what does not depend on it:

    entry   z_ref' = low(z) + g (z_ref - low(z_ref)),    g = min(1, std(z - low(z)) / std(z_ref - low(z_ref)))
            The network is shown its own strokes, but the source's colours and no more contrast than the source has:
            it never paints over its own paint.
    exit    x' = x + m (a - 1) (x - mu_m(x)),      a = running mean of  std_m(x0) / std_m(x),      x the fused x0
            Each channel of what was fused is given the contrast that this frame's own prediction x0 has where the past
            is trusted (m): a blend of strokes that do not quite meet has less. It is to the picture what the rescale
            is to the noise. The gain a moves slowly, since what flickers in it would flicker in the picture.

low is a mean over 5 x 5 cells; all statistics are for each channel. Without them, sharpness on a still road grew by a
fifth and colours moved by a tenth within 600 frames; bench/bench_consistency.py and bench/bench_drift.py measure both.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

RADIUS = 2  # cells, of the local mean
SMALLEST, LARGEST = 0.5, 2.0  # of the exit's gain: beyond them it is noise, not contrast
NOTHING = 1e-6


def lock_to_source(z_ref: Tensor, z: Tensor) -> Tensor:
    """The entry lock: detail of z_ref over the local mean of z, both [b, c, h, w]; no louder than z's own detail."""
    base, base_ref = _low(z), _low(z_ref)
    detail = z_ref - base_ref
    gain = _std(z - base) / _std(detail).clamp_min(NOTHING)
    return torch.addcmul(base, gain.clamp_(max=1.0), detail)


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
    """The exit lock: (x with the contrast of x0 where it is trusted, the gain for the next frame).

    x, x0     [1, c, h, w]: the frame's prediction after and before fusion
    trust     [1, 1, h, w]; where it is 0, x is left to the bit
    gain      of the frame before, [1, c, 1, 1]; None, or of other channels: there is none yet
    exit      in [0, 1], of the contrast that is given back
    rate      in (0, 1], share of this frame in the running mean
    coverage  mean trust below which the gain starts anew from this frame
    drift     a channel whose gain would move by more than this factor less 1 starts anew as well
    """
    mean, std_fused = _seen(x, trust)
    _, std = _seen(x0, trust)
    now = ((std + NOTHING) / (std_fused + NOTHING)).clamp(SMALLEST, LARGEST)
    before = now if gain is None or gain.shape != now.shape else gain
    ratio = now / before
    near = (ratio <= 1 + drift) & (ratio >= 1 / (1 + drift))
    anew = ~near | (trust.mean() < coverage)  # NaN is not near: it leaves with the frame that brought it
    after = torch.where(anew, now, before + rate * (now - before))
    return torch.addcmul(x, (x - mean).mul_(exit * (after - 1)), trust), after


def _low(x: Tensor) -> Tensor:
    """Mean over a square of 2 RADIUS + 1 cells; the edge goes on."""
    return avg_pool2d(pad(x, (RADIUS,) * 4, "replicate"), 2 * RADIUS + 1, 1)


def _std(x: Tensor) -> Tensor:
    # not `std`: its one pass of running means takes ten times as long on a CPU
    n = x[0, 0].numel()
    mean = x.mean(dim=(2, 3), keepdim=True)
    apart = x - mean
    norm: Tensor = torch.linalg.vector_norm(apart, dim=(2, 3), keepdim=True)
    return norm.div_(math.sqrt(n - 1))


def _seen(x: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel where trust is, [1, c, 1, 1]; 0 where there is none."""
    total = trust.sum().clamp_min(NOTHING)
    each, share = x.flatten(2)[0], trust.flatten() / total  # a sum over cells is a product of matrices
    mean = (each @ share)[:, None]
    apart = each - mean
    std = (apart.square_() @ share).sqrt_()
    return mean[None, :, :, None], std[None, :, None, None]
