"""Moment matching, which keeps a picture that is fed back from drifting.

A picture that is fed back is styled again and again. The errors that the network adds, and the detail that warping and
the autoencoder remove, add up from frame to frame. Two locks tie the statistics of the fed-back latent to others that
do not depend on it:

    entry   z_ref' = low(z) + g (z_ref - low(z_ref)),    g = min(1, std(z - low(z)) / std(z_ref - low(z_ref)))
            The reference z_ref keeps its detail, but gets the colours of the source z and at most the source's
            contrast. So the style is not applied to an already styled picture again and again.
    exit    x' = x + m (a - 1) (x - mu_m(x)),      a = running mean of  std_m(x0) / std_m(x),      x the fused x0
            Each channel of the fused x gets the contrast of this frame's prediction x0, where the past is trusted (m).
            Blending strokes that are slightly displaced lowers the contrast. The lock corresponds to the rescaling of
            noise in fusion. The gain a changes slowly, since its flicker would be visible.

low is the mean over 5 x 5 cells. All statistics are computed for each channel. Without the locks, sharpness on a still
road grew by a fifth and colours moved by a tenth within 600 frames; bench/bench_consistency.py and bench/bench_drift.py
measure both.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

RADIUS = 2  # of the local mean, cells
SMALLEST, LARGEST = 0.5, 2.0  # bounds of the exit's gain: a ratio beyond them comes from noise, not from contrast
NOTHING = 1e-6


def lock_to_source(z_ref: Tensor, z: Tensor) -> Tensor:
    """The entry lock: the detail of z_ref, with at most the deviation of z's detail, on the local mean of z.

    z_ref, z  [b, c, h, w]
    """
    both = torch.cat((z, z_ref))
    base = _low(both)
    detail = both - base
    std, std_ref = detail.std(dim=(2, 3), keepdim=True).chunk(2)
    gain = (std / std_ref.clamp_min(NOTHING)).clamp_(max=1.0)
    return torch.addcmul(base[: len(z)], gain, detail[len(z) :])


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
    """The exit lock. Returns x with the contrast of x0 where the past is trusted, and the gain for the next frame.

    x, x0     [1, c, h, w]: the frame's prediction after and before fusion
    trust     [1, 1, h, w] in [0, 1]; where it is 0, x is unchanged to the bit
    gain      gain of the last frame, [1, c, 1, 1]; None or another number of channels: the running mean starts here
    exit      in [0, 1]: share of the contrast that is restored
    rate      in (0, 1]: share of this frame in the running mean
    coverage  with a mean trust below this, the running mean starts again from this frame
    drift     for a channel whose gain changes by more than the factor 1 + drift, the running mean starts again as well
    """
    total = trust.sum()
    mean, std = _seen(torch.cat((x, x0), dim=1), trust, total)
    std_fused, std = (std + NOTHING).chunk(2, dim=1)
    now = (std / std_fused).clamp_(SMALLEST, LARGEST)
    before = now if gain is None or gain.shape != now.shape else gain
    ratio = now / before
    far = ratio != ratio.clamp(1 / (1 + drift), 1 + drift)  # NaN is far, so it lasts for one frame only
    anew = far | (total < coverage * trust.numel())
    after = torch.where(anew, now, torch.lerp(before, now, rate))
    return torch.addcmul(x, (x - mean[:, : x.shape[1]]).mul_(exit * (after - 1)), trust), after


def _low(x: Tensor) -> Tensor:
    """Mean over a square of 2 RADIUS + 1 cells, with replicated edges."""
    return avg_pool2d(pad(x, (RADIUS,) * 4, "replicate"), 2 * RADIUS + 1, 1)


def _seen(x: Tensor, trust: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, weighted by trust: [1, c, 1, 1] each. Both are 0 without trust.

    total  the sum of trust
    """
    # weighted sums over the cells as a matrix product
    each, share = x.flatten(2)[0], trust.flatten() / total.clamp_min(NOTHING)
    mean = (each @ share)[:, None]
    apart = each - mean
    std = (apart.square_() @ share).sqrt_()
    return mean[None, :, :, None], std[None, :, None, None]
